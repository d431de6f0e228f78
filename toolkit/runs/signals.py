"""Stopping a run politely: the first signal asks for a checkpoint, the second ends the process at once."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from toolkit.errors import Interrupted

__all__ = ["STOP_SIGNALS", "StopSignals"]

STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)

_log = logging.getLogger("vlm_rlhf.signals")


class StopSignals:
    """Remembers that SIGINT, SIGTERM or SIGUSR1 (a scheduler's warning) arrived; loops ask at the end of a step.

    With several processes each has its own flag and the signal may reach them at different steps: reduce
    ``requested`` over all ranks before acting on it.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    @property
    def requested(self) -> bool:
        """Whether the run should write a checkpoint and end."""
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after any other signal."""
        return 130 if self.received in (None, signal.SIGINT) else 143

    def request(self, number: int = signal.SIGTERM) -> None:
        """Ask for a stop from inside the program, as if signal ``number`` had arrived."""
        self.received = signal.Signals(number)

    def interrupted(self, message: str) -> Interrupted:
        """The error to raise once the checkpoint is written."""
        return Interrupted(message, exit_code=self.exit_code)

    def raise_if_requested(self, message: str) -> None:
        """Raise ``Interrupted`` when a signal arrived."""
        if self.requested:
            raise self.interrupted(message)

    @contextlib.contextmanager
    def installed(self) -> Iterator[StopSignals]:
        """Catch the signals inside the block; the former handlers are put back. Does nothing off the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        former = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        try:
            yield self
        finally:
            for number, handler in former.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number != signal.SIGUSR1:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        _log.warning(
            "%s: stopping after this step, with a checkpoint (again: stop at once)", self.received.name
        )
