"""Traps of this software on CPUs, closed at start-up: each one is silent, or dies long after its cause.

``prepare_process`` is called by commands before torch is imported; the others by ``toolkit.models.loading``.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from typing import TYPE_CHECKING, Any

from toolkit.errors import EnvironmentLacking, RecipeError

if TYPE_CHECKING:
    from toolkit.config.schema import ModelSpec

__all__ = [
    "check_precision",
    "check_torchvision",
    "init_distributed_on_cpu",
    "keep_bitsandbytes_weights_unpacked",
    "prepare_process",
]

_logger = logging.getLogger("vlm_rlhf.models.guards")


def prepare_process() -> None:
    """Environment variables that must be set before torch starts its threads; what the user has set is kept.

    With OpenMP's default, waiting threads spin: on a machine with other work this costs a factor of 6 to 10.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def keep_bitsandbytes_weights_unpacked() -> None:
    """Stop bitsandbytes from repacking 4-bit weights on CPUs with AVX512-BF16. Call before loading.

    The first forward in eval mode without gradients repacks them; afterwards training gradients are wrong
    (cosine 0.4 to the true ones), merging an adapter gives garbage, and layers whose width is no multiple of
    64 crash.

    Raises:
        EnvironmentLacking: bitsandbytes is not installed, or no longer has the switch that this relies on.
    """
    try:
        modules: Any = importlib.import_module("bitsandbytes.nn.modules")
    except ImportError as error:
        raise EnvironmentLacking(
            f"model.quantization needs bitsandbytes, which cannot be imported: {error}",
            remedy="pip install bitsandbytes, or remove model.quantization",
        ) from error
    if not hasattr(modules, "has_avx512bf16"):
        raise EnvironmentLacking(
            "this bitsandbytes has no has_avx512bf16 switch, so 4-bit training on a CPU cannot be made safe",
            remedy="install bitsandbytes 0.50",
        )
    modules.has_avx512bf16 = _no


def _no() -> bool:
    return False


def check_precision(spec: ModelSpec, *, on_cpu: bool) -> None:
    """Refuse float16 on a CPU (minutes a step), and warn that bfloat16 there is slower than float32.

    Raises:
        RecipeError: ``model.dtype`` or the quantisation's compute dtype is float16 and the device is a CPU.
    """
    if not on_cpu:
        return
    used = {"dtype": spec.dtype}
    if spec.quantization is not None:
        used["quantization.compute_dtype"] = spec.quantization.compute_dtype
    problems = [
        f"{key}: float16 is unusably slow on a CPU" for key, value in used.items() if value == "float16"
    ]
    if problems:
        raise RecipeError("model", problems, remedy="use float32 on a CPU")
    if spec.dtype == "bfloat16":
        _logger.warning("model.dtype bfloat16: slower than float32 on this CPU and less exact")


def check_torchvision() -> None:
    """Refuse a torchvision that is installed but broken: every processor would fail to import.

    Raises:
        EnvironmentLacking: torchvision is there and cannot be imported.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        raise EnvironmentLacking(
            f"torchvision is installed but cannot be imported: {error}",
            remedy="pip uninstall torchvision (it is not needed), or install the build that fits this torch",
        ) from error


def init_distributed_on_cpu() -> bool:
    """Start DeepSpeed's process group (gloo) where several processes share a machine without a GPU.

    Without it, loading under ZeRO-3 believes in a world of one process. True when a group was started.

    Raises:
        EnvironmentLacking: several processes were started, and DeepSpeed is not installed.
    """
    import torch

    if int(os.environ.get("WORLD_SIZE", "1")) <= 1 or torch.cuda.is_available():
        return False
    try:
        deepspeed = importlib.import_module("deepspeed")
    except ImportError as error:
        raise EnvironmentLacking(
            f"several processes with ZeRO need deepspeed: {error}", remedy="pip install deepspeed"
        ) from error
    deepspeed.init_distributed(dist_backend="gloo")
    return True
