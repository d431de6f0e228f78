"""Which of a run's processes this is, read from the launcher's environment variables (no torch needed)."""

from __future__ import annotations

import os
import sys

__all__ = ["is_main_process", "leave_process_group", "process_count", "process_rank"]


def process_rank() -> int:
    """Rank of this process; 0 without a launcher."""
    return _number("RANK", 0)


def process_count() -> int:
    """Number of processes the launcher started; 1 without one."""
    return _number("WORLD_SIZE", 1)


def is_main_process() -> bool:
    """Whether this process writes files and logs."""
    return process_rank() == 0


def leave_process_group() -> None:
    """Close the connections to the other processes, if torch opened any.

    For the end of a stage that all processes reached: left to the interpreter's shutdown, the threads behind the
    connections may still be waiting for each other when the modules below them are gone, and the process hangs.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
