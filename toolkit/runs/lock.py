"""One writer a run directory: a lock the operating system drops when its process dies."""

from __future__ import annotations

import os
import time
from pathlib import Path

from toolkit.errors import CheckpointError

__all__ = ["DirectoryLock"]


class DirectoryLock:
    """An advisory lock on a file. Where the platform has no ``fcntl`` it holds nothing and never fails.

    Args:
        path: the lock file.
        timeout_s: how long ``acquire`` waits, e.g. for a process that is writing its last checkpoint.
    """

    def __init__(self, path: Path, *, timeout_s: float = 20.0) -> None:
        self.path = path
        self.timeout_s = timeout_s
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            CheckpointError: another process still holds it after ``timeout_s``.
        """
        try:
            import fcntl
        except ImportError:
            return
        if self._descriptor is not None:
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        deadline_s = time.monotonic() + self.timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline_s:
                    holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                    os.close(descriptor)
                    raise CheckpointError(
                        f"{self.path.parent} is being written by another process (id {holder})",
                        remedy="wait for it to end, or choose another run.output_dir",
                    ) from None
                time.sleep(0.1)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back and remove its file."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self._close()
