"""Which of a run's processes this is, read from the launcher's environment variables (no torch needed)."""

from __future__ import annotations

import os

__all__ = ["is_main_process", "process_count", "process_rank"]


def process_rank() -> int:
    """Rank of this process; 0 without a launcher."""
    return _number("RANK", 0)


def process_count() -> int:
    """Number of processes the launcher started; 1 without one."""
    return _number("WORLD_SIZE", 1)


def is_main_process() -> bool:
    """Whether this process writes files and logs."""
    return process_rank() == 0


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
