"""The checks of ``vlm-rlhf doctor``: each looks at one thing and says what it found."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from toolkit.config.devices import gpu_count

__all__ = ["Finding", "diagnose"]

Status = Literal["ok", "note", "fail"]

_ESSENTIAL = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "pillow",
    "numpy",
    "pydantic",
    "ruamel.yaml",
)
_OPTIONAL = {
    "bitsandbytes": "4-bit and 8-bit models",
    "deepspeed": "--launch zero1, zero2, zero3",
    "tensorboard": "run.report_to: [tensorboard]",
    "wandb": "run.report_to: [wandb]",
    "trackio": "run.report_to: [trackio]",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the diagnosis. ``note`` means that something optional is missing or worth knowing."""

    name: str
    status: Status
    found: str
    remedy: str = ""


def diagnose() -> list[Finding]:
    """Look at everything; imports the heavy libraries, so it takes some seconds."""
    findings = [_python(), *[_package(name) for name in _ESSENTIAL]]
    findings += [_optional(name, purpose) for name, purpose in _OPTIONAL.items()]
    checks: list[Callable[[], Finding]] = [
        _devices,
        _torchvision,
        _bitsandbytes,
        _compiler,
        _java,
        _threads,
        _memory,
        _disk,
        _bundled,
    ]
    for check in checks:
        try:
            findings.append(check())
        except Exception as error:  # noqa: BLE001 - a library that cannot be imported is what we are looking for
            name = check.__name__.strip("_")
            findings.append(Finding(name, "fail", f"{type(error).__name__}: {_first_line(error)}"))
    return findings


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")


def _package(name: str) -> Finding:
    try:
        return Finding(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "fail", "not installed", "pip install vlm-rlhf")


def _optional(name: str, purpose: str) -> Finding:
    try:
        return Finding(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "note", f"not installed; needed for {purpose}", f"pip install {name}")


def _devices() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding("devices", "ok", ", ".join(names))
    cpu = f"CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if gpu_count():
        return Finding(
            "devices",
            "fail",
            f"{gpu_count()} GPU(s) that torch {torch.__version__} cannot use",
            "install a CUDA build of torch",
        )
    return Finding("devices", "note", f"{cpu}; no GPU: full precision, tiny models")


def _torchvision() -> Finding:
    """A torchvision that does not fit torch is found by transformers and breaks every processor."""
    if importlib.util.find_spec("torchvision") is None:
        return Finding("torchvision", "ok", "not installed (not needed)")
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # noqa: BLE001 - it fails with whatever its extension raises
        return Finding(
            "torchvision",
            "fail",
            _first_line(error),
            "pip uninstall torchvision, or install the build for this torch",
        )
    return Finding("torchvision", "ok", metadata.version("torchvision"))


def _bitsandbytes() -> Finding:
    """On CPUs with AVX512-BF16, inference repacks 4-bit weights and later gradients are wrong without our guard."""
    name = "bitsandbytes on this CPU"
    if importlib.util.find_spec("bitsandbytes") is None:
        return Finding(name, "note", "not installed")
    modules = importlib.import_module("bitsandbytes.nn.modules")
    repacks = getattr(modules, "has_avx512bf16", None)
    if repacks is None:
        return Finding(name, "note", "its CPU packing switch is gone; the guard has nothing to turn off")
    if repacks():
        return Finding(
            name, "ok", "AVX512-BF16: weight repacking, which spoils gradients, is turned off in every run"
        )
    return Finding(name, "ok", "no AVX512-BF16, weights are not repacked")


def _compiler() -> Finding:
    """DeepSpeed compiles its communication and optimizer kernels when they are first used."""
    if importlib.util.find_spec("deepspeed") is None:
        return Finding("compiler for DeepSpeed", "note", "DeepSpeed is not installed")
    found = next((tool for tool in ("g++", "c++") if shutil.which(tool)), None)
    if found is None:
        return Finding(
            "compiler for DeepSpeed", "note", "no C++ compiler", "install g++ to use --launch zero…"
        )
    cache = Path(os.environ.get("TORCH_EXTENSIONS_DIR", Path.home() / ".cache" / "torch_extensions"))
    state = (
        "kernels compiled before" if cache.is_dir() else "the first run compiles kernels for 1 to 3 minutes"
    )
    return Finding("compiler for DeepSpeed", "ok", f"{found}; {state}")


def _java() -> Finding:
    tool = shutil.which("java")
    if tool is None:
        return Finding(
            "java", "note", "not found; needed for METEOR and SPICE only", "install a Java runtime"
        )
    done = subprocess.run([tool, "-version"], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        return Finding("java", "note", f"{tool} does not run", "install a Java runtime for METEOR and SPICE")
    return Finding("java", "ok", (done.stderr or done.stdout).splitlines()[0])


def _threads() -> Finding:
    policy = os.environ.get("OMP_WAIT_POLICY", "unset")
    if policy.upper() == "PASSIVE":
        return Finding("OpenMP", "ok", "idle threads sleep (OMP_WAIT_POLICY=PASSIVE)")
    return Finding(
        "OpenMP",
        "note",
        f"OMP_WAIT_POLICY is {policy}: slow on a busy machine",
        "export OMP_WAIT_POLICY=PASSIVE",
    )


def _memory() -> Finding:
    if not hasattr(os, "sysconf") or "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return Finding("memory", "note", "unknown on this system")
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = (os.sysconf(name) * page / 2**30 for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    remedy = "the quickstart needs about 4 GiB" if total < 4 else ""
    return Finding("memory", "note" if remedy else "ok", f"{free:.1f} GiB free of {total:.1f}", remedy)


def _disk() -> Finding:
    usage = shutil.disk_usage(Path.cwd())
    free = usage.free / 2**30
    remedy = "free some space: a run needs about 1 GiB" if free < 1 else ""
    return Finding(
        "disk", "fail" if free < 0.2 else "note" if remedy else "ok", f"{free:.1f} GiB free here", remedy
    )


def _bundled() -> Finding:
    from toolkit.bundled import bundled_path
    from toolkit.errors import EnvironmentLacking

    try:
        return Finding("tiny VLM", "ok", str(bundled_path("tiny-vlm")))
    except EnvironmentLacking as error:
        return Finding("tiny VLM", "fail", error.message, error.remedy or "")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
