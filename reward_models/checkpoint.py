"""Reward models on disk: adapter (or full weights), ``reward_head.safetensors`` and ``reward_config.json``.

The same adapter on another base, at another precision, under another chat template or image size is another
reward; what was trained is written down, and loading refuses anything else with the reason.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from reward_models.model import VlmRewardModel
from toolkit.config.schema import ModelSpec, QuantizationSpec
from toolkit.errors import CheckpointError
from toolkit.models.heads import ScalarHead
from toolkit.models.loading import LoadedVlm, load_vlm
from toolkit.models.roles import POLICY
from toolkit.runs.inputs import file_sha256

__all__ = [
    "CONFIG_FILE",
    "HEAD_FILE",
    "RewardConfig",
    "describe",
    "load_head",
    "load_reward_model",
    "mismatches",
    "read_config",
    "save_reward_model",
]

CONFIG_FILE = "reward_config.json"
HEAD_FILE = "reward_head.safetensors"
_HASHED_BYTES = 1 << 30


class RewardConfig(BaseModel):
    """What a reward model was trained on, and how its scores lie.

    ``base_weights`` are SHA-256 digests of a local base's weight files, by name (empty for a base on the
    hub, which its revision identifies, and for bases over 1 GiB). ``score_mean`` and ``score_std`` are over
    the completions of the validation pairs, ``held_out_accuracy`` is the share of those pairs ranked right.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_id: str
    base_revision: str | None = None
    base_weights: dict[str, str] = {}
    chat_template_sha256: str
    image_size: dict[str, Any]
    full_weights: bool = False
    dtype: str
    quantization: QuantizationSpec | None = None
    blank_images: bool = False
    score_mean: float = 0.0
    score_std: float = 1.0
    held_out_accuracy: float | None = None
    held_out_pairs: int = 0


def describe(vlm: LoadedVlm, spec: ModelSpec, **values: Any) -> RewardConfig:
    """The configuration of a model loaded with ``spec``; ``values`` fills the fields measured after training."""
    template = vlm.processor.chat_template
    text = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
    return RewardConfig(
        base_id=vlm.base_id,
        base_revision=vlm.base_revision,
        base_weights=_weight_digests(vlm.base_id),
        chat_template_sha256=hashlib.sha256(text.encode()).hexdigest(),
        image_size=_image_size(vlm.processor),
        full_weights=not isinstance(vlm.model, PeftModel),
        dtype=spec.dtype,
        quantization=spec.quantization,
        **values,
    )


def mismatches(trained: RewardConfig, present: RewardConfig) -> list[str]:
    """Reasons why ``present`` would give other scores than ``trained``; empty when they agree."""
    reasons = []
    if trained.full_weights:
        same_base = True  # the weights are in the checkpoint itself
    elif trained.base_weights and present.base_weights:
        same_base = trained.base_weights == present.base_weights
    else:
        same_base = (trained.base_id, trained.base_revision) == (present.base_id, present.base_revision)
    if not same_base:
        reasons.append(f"base model: trained on {_base_of(trained)}, found {_base_of(present)}")
    if trained.chat_template_sha256 != present.chat_template_sha256:
        reasons.append("chat template: not the one it was trained with (SHA-256 differs)")
    if trained.image_size != present.image_size:
        reasons.append(f"image size: trained with {trained.image_size}, found {present.image_size}")
    if (trained.dtype, trained.quantization) != (present.dtype, present.quantization):
        reasons.append(f"precision: trained with {_precision_of(trained)}, found {_precision_of(present)}")
    return reasons


def save_reward_model(
    model: VlmRewardModel,
    directory: Path,
    config: RewardConfig,
    *,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the model into an existing ``directory``: weights, head, configuration and processor; no pickle.

    Args:
        model: what to write.
        directory: where.
        config: what it was trained on, and its figures.
        tensors: the trained tensors by their names in ``model``, where the model itself holds parts of them
            only (ZeRO-3); without it they are read from the model.
    """
    options: dict[str, Any] = {}
    if tensors is not None:
        options["state_dict"] = _below("model.", tensors)
    if isinstance(model.model, PeftModel):
        options["selected_adapters"] = [model.adapter or POLICY]
    model.model.save_pretrained(directory, **options)
    head = model.head.state_dict() if tensors is None else _below("head.", tensors)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in head.items()}
    save_file(whole, str(directory / HEAD_FILE))
    text = json.dumps(config.model_dump(mode="json"), indent=2, sort_keys=True)
    (directory / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    model.vlm.processor.save_pretrained(directory)


def read_config(directory: Path) -> RewardConfig:
    """The configuration in ``directory``.

    Raises:
        CheckpointError: no reward model there, or a damaged configuration.
    """
    missing = [name for name in (CONFIG_FILE, HEAD_FILE) if not (directory / name).is_file()]
    if missing:
        found = (directory / "final" / CONFIG_FILE).is_file()
        remedy = (
            f"did you mean {directory / 'final'}?" if found else "give the final/ directory of a reward run"
        )
        raise CheckpointError(
            f"{directory} is no reward model: {' and '.join(missing)} missing", remedy=remedy
        )
    try:
        return RewardConfig.model_validate_json((directory / CONFIG_FILE).read_text(encoding="utf-8"))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise CheckpointError(f"{directory / CONFIG_FILE} is damaged: {'; '.join(lines)}") from error


def load_head(directory: Path, hidden_size: int) -> ScalarHead:
    """The scalar head in ``directory``.

    Raises:
        CheckpointError: the file is damaged, its width is not ``hidden_size``, or it holds NaN.
    """
    head = ScalarHead(hidden_size)
    path = directory / HEAD_FILE
    try:
        state = load_file(str(path))
        head.load_state_dict(state)
    except Exception as error:  # safetensors and torch raise their own kinds for damaged files
        raise CheckpointError(f"{path} does not fit a model of width {hidden_size}: {error}") from error
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise CheckpointError(f"{path} holds NaN or infinite weights", remedy="train the reward model again")
    return head


def load_reward_model(directory: Path) -> tuple[VlmRewardModel, RewardConfig]:
    """A frozen reward model on a base of its own, in the precision it was trained in.

    Raises:
        CheckpointError: no reward model there, or base, chat template or image size are not those of its
        training.
    """
    config = read_config(directory)
    spec = ModelSpec(id=str(directory), dtype=config.dtype, quantization=config.quantization)  # type: ignore[arg-type]
    vlm = load_vlm(spec, trainable=False)
    refuse_mismatch(directory, config, describe(vlm, spec))
    head = load_head(directory, vlm.hidden_size).to(vlm.device)
    return VlmRewardModel(vlm, head).requires_grad_(False).eval(), config


def refuse_mismatch(directory: Path, trained: RewardConfig, present: RewardConfig) -> None:
    """Raise ``CheckpointError`` with every reason why ``present`` would give other scores than ``trained``."""
    reasons = mismatches(trained, present)
    if reasons:
        raise CheckpointError(
            "\n  ".join([f"the reward model {directory} does not fit:", *reasons]),
            remedy="use the base, precision and processor it was trained with, or train it again on this one",
        )


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _weight_digests(base_id: str) -> dict[str, str]:
    files = sorted(Path(base_id).glob("*.safetensors"))
    if not files or sum(path.stat().st_size for path in files) > _HASHED_BYTES:
        return {}
    return {path.name: file_sha256(path) for path in files}


def _image_size(processor: Any) -> dict[str, Any]:
    size = processor.image_processor.size
    return {str(key): value for key, value in dict(size).items() if value is not None}


def _base_of(config: RewardConfig) -> str:
    revision = f" at revision {config.base_revision}" if config.base_revision else ""
    return f"{config.base_id}{revision}"


def _precision_of(config: RewardConfig) -> str:
    if config.quantization is None:
        return config.dtype
    quantization = config.quantization
    return f"{quantization.bits}-bit {quantization.type} with {quantization.compute_dtype} compute ({config.dtype})"
