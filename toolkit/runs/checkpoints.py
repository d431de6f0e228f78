"""``checkpoint-<step>`` folders of a run: finding the latest complete one, removing old ones."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

__all__ = ["checkpoint_step", "checkpoints", "latest_checkpoint", "prune"]

_NAME = re.compile(r"^checkpoint-(\d+)$")


def checkpoint_step(path: str | Path) -> int | None:
    """The step in a ``checkpoint-<step>`` name, or ``None`` for any other name."""
    match = _NAME.match(Path(path).name)
    return int(match[1]) if match else None


def checkpoints(folder: str | Path, *, required: Sequence[str] = ()) -> list[Path]:
    """Complete checkpoint folders of ``folder``, by ascending step.

    Args:
        folder: a run directory; it may be missing.
        required: file names without which a checkpoint is incomplete. Folders written by ``atomic_directory`` are
            complete as soon as they exist; those of transformers' ``Trainer`` need ``trainer_state.json``.
    """
    found: list[tuple[int, Path]] = []
    for path in Path(folder).glob("checkpoint-*"):
        step = checkpoint_step(path)
        if step is not None and path.is_dir() and all((path / name).is_file() for name in required):
            found.append((step, path))
    return [path for _, path in sorted(found)]


def latest_checkpoint(folder: str | Path, *, required: Sequence[str] = ()) -> Path | None:
    """The complete checkpoint with the highest step, or ``None``; arguments as for ``checkpoints``."""
    found = checkpoints(folder, required=required)
    return found[-1] if found else None


def prune(folder: str | Path, save_total_limit: int, *, keep: Path | None = None) -> list[Path]:
    """Delete the oldest checkpoints until ``save_total_limit`` are left; returns the deleted ones.

    ``keep`` (the best so far) counts towards the limit and is never deleted; nor is the latest.
    """
    found = checkpoints(folder)
    spared = {found[-1].resolve()} if found else set()
    if keep is not None:
        spared.add(keep.resolve())
    surplus = len(found) - max(save_total_limit, 1)
    deleted: list[Path] = []
    for path in found:
        if len(deleted) >= surplus:
            break
        if path.resolve() not in spared:
            shutil.rmtree(path)
            deleted.append(path)
    return deleted
