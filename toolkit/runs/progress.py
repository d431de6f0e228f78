"""Progress of long steps on stderr: one live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import TextIO, TypeVar

from toolkit.runs.processes import is_main_process

__all__ = ["Progress", "progress"]

Item = TypeVar("Item")
_LIVE_EVERY_S = 0.2
_PLAIN_EVERY_S = 15.0
_BAR_CELLS = 24


class Progress:
    """A counter with rate and time left; a context manager whose exit prints the last state.

    Args:
        total: how many steps there are, or ``None`` when unknown.
        label: what is being done, in a few words.
        start: steps already done before (a resumed run); they do not count for the rate.
        stream: where to write; standard error by default. Processes other than the main one are silent.
    """

    def __init__(
        self, total: int | None, label: str, *, start: int = 0, stream: TextIO | None = None
    ) -> None:
        self.total = total
        self.label = label
        self.done = start
        self._start = start
        self._stream = stream if stream is not None else sys.stderr
        self._live = bool(getattr(self._stream, "isatty", lambda: False)())
        self._silent = not is_main_process()
        self._began_s = time.monotonic()
        self._shown_s = self._began_s if not self._live else float("-inf")
        self._shown_done = -1

    def update(self, steps: int = 1, note: str = "") -> None:
        """Count ``steps`` more; ``note`` (a loss, a score) is shown at the end of the line."""
        self.done += steps
        now_s = time.monotonic()
        if now_s - self._shown_s >= (_LIVE_EVERY_S if self._live else _PLAIN_EVERY_S):
            self._show(now_s, note)

    def close(self) -> None:
        """Show the last state and end the line."""
        if self._shown_done != self.done:
            self._show(time.monotonic(), "")
        if self._live and not self._silent:
            self._stream.write("\n")
            self._stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _show(self, now_s: float, note: str) -> None:
        self._shown_s, self._shown_done = now_s, self.done
        if self._silent:
            return
        line = self._line(now_s - self._began_s) + (f"  {note}" if note else "")
        self._stream.write(f"\r\x1b[2K{line}" if self._live else f"{line}\n")
        self._stream.flush()

    def _line(self, elapsed_s: float) -> str:
        rate = (self.done - self._start) / elapsed_s if elapsed_s > 0 else 0.0
        speed = f"{rate:.1f}/s" if rate >= 1 or rate == 0 else f"{1 / rate:.1f} s each"
        if self.total is None:
            return f"{self.label}  {self.done}  {speed}  {_clock(elapsed_s)} passed"
        left = _clock((self.total - self.done) / rate) if rate > 0 else "?"
        share = min(self.done / self.total, 1.0) if self.total else 1.0
        filled = round(share * _BAR_CELLS)
        bar = f" {'█' * filled}{'·' * (_BAR_CELLS - filled)}" if self._live else ""
        tail = f"{_clock(elapsed_s)} passed" if self.done >= self.total else f"{left} left"
        return f"{self.label} {bar} {self.done}/{self.total}  {speed}  {tail}"


def progress(iterable: Iterable[Item], total: int | None = None, label: str = "") -> Iterator[Item]:
    """Yield the items of ``iterable`` while showing how far it is; ``total`` defaults to its length."""
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with Progress(total, label) as bar:
        for item in iterable:
            yield item
            bar.update()


def _clock(seconds: float) -> str:
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
