"""One writer a run directory: a lock the operating system drops when its process dies."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import IO

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
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            CheckpointError: another process still holds it after ``timeout_s``.
        """
        try:
            import fcntl
        except ImportError:
            return
        if self._file is not None:
            return
        file = self.path.open("a+", encoding="utf-8")
        deadline_s = time.monotonic() + self.timeout_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline_s:
                    file.seek(0)
                    holder = file.read().strip() or "unknown"
                    file.close()
                    raise CheckpointError(
                        f"{self.path.parent} is being written by another process (id {holder})",
                        remedy="wait for it to end, or choose another run.output_dir",
                    ) from None
                time.sleep(0.2)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give the lock back and remove its file."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None
