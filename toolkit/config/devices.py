"""Which accelerators a recipe will meet, found without importing torch."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

__all__ = ["gpu_count"]


def gpu_count() -> int:
    """Number of visible NVIDIA GPUs: those the driver lists, fewer when ``CUDA_VISIBLE_DEVICES`` says so."""
    present = _listed_gpus()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present
    named = [part.strip() for part in visible.split(",")]
    return min(present, sum(part not in ("", "-1") for part in named))


@functools.cache
def _listed_gpus() -> int:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    try:
        done = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())
