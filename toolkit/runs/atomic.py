"""Writes that are either complete or absent, also after ``kill -9`` or a power cut."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

__all__ = ["atomic_directory", "atomic_write_text", "remove_leftovers"]

_LEFTOVER = re.compile(r"^\.(?P<name>.+)\.(?:tmp|old)-(?P<pid>\d+)$")


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file under a temporary name, flush it to disk and rename it to ``path``."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


@contextlib.contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that becomes ``path`` when the block ends without an exception.

    Yields:
        the temporary folder to write into. After the block every file in it is on disk and the folder is renamed;
        a folder that was at ``path`` before is replaced. After an exception nothing is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        _sync_tree(temporary)
        _replace_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Delete what killed processes left half-written in ``folder``; puts back a folder caught between two renames.

    Only call it when no other process writes there. Returns what was removed or put back.
    """
    handled: list[Path] = []
    for path in sorted(Path(folder).iterdir()):
        match = _LEFTOVER.match(path.name)
        if match is None or int(match["pid"]) == os.getpid():
            continue
        target = path.with_name(match["name"])
        if ".old-" in path.name and not target.exists():
            os.rename(path, target)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        handled.append(path)
    return handled


def _replace_directory(temporary: Path, path: Path) -> None:
    """Rename over ``path``. A non-empty folder cannot be replaced in one step, so the old one steps aside first."""
    old = path.with_name(f".{path.name}.old-{os.getpid()}")
    if path.exists():
        os.rename(path, old)
    os.rename(temporary, path)
    _sync_directory(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(os.path.join(root, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        _sync_directory(Path(root))


def _sync_directory(folder: Path) -> None:
    """Make renames in ``folder`` durable; systems that cannot open a folder do it by themselves."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
