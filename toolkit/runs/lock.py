"""One writer a run directory: a lock the operating system drops when its process dies."""

from __future__ import annotations

import os
import time
from pathlib import Path

from toolkit.errors import CheckpointError

__all__ = ["DirectoryLock"]


class DirectoryLock:
    """An advisory lock on a file. Where the platform has no ``fcntl`` it excludes nobody and never fails.

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
        if self._descriptor is not None:
            return
        try:
            import fcntl
        except ImportError:
            self._descriptor = self._open()
            return
        deadline_s = time.monotonic() + self.timeout_s
        descriptor = self._open()
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > deadline_s:
                    holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                    os.close(descriptor)
                    raise CheckpointError(
                        f"{self.path.parent} is being written by another process (id {holder})",
                        remedy="wait for it to end, or choose another run.output_dir",
                    ) from None
                time.sleep(0.1)
                continue
            if self._is_current(descriptor):
                break
            os.close(descriptor)  # its former holder removed the file
            descriptor = self._open()
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    @property
    def held(self) -> bool:
        """Whether this object has the lock."""
        return self._descriptor is not None

    def release(self) -> None:
        """Give the lock back and remove its file."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            self._close()

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)

    def _is_current(self, descriptor: int) -> bool:
        """Whether the locked file is still the one at the path."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self._close()
