"""Progress of long steps on stderr: one live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
import unicodedata
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

    A live line never wraps: what is too long for the terminal loses the end of its note, then bar, time and rate.

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
        self._note = ""

    def update(self, steps: int = 1, note: str = "") -> None:
        """Count ``steps`` more; ``note`` (a loss, a score) is shown at the end of the line until there is a new one."""
        self.done += steps
        self._note = note or self._note
        now_s = time.monotonic()
        if now_s - self._shown_s >= (_LIVE_EVERY_S if self._live else _PLAIN_EVERY_S):
            self._show(now_s)

    def close(self) -> None:
        """Show the last state with the newest note and end the line."""
        if self._shown_done != self.done:
            self._show(time.monotonic())
        if self._live and not self._silent:
            self._stream.write("\n")
            self._stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _show(self, now_s: float) -> None:
        self._shown_s, self._shown_done = now_s, self.done
        if self._silent:
            return
        room = _columns(self._stream) - 1 if self._live else None
        line = self._line(now_s - self._began_s, room) + (f"  {self._note}" if self._note else "")
        self._stream.write(f"{line}\n" if room is None else f"\r\x1b[2K{_cut(line, room)}")
        self._stream.flush()

    def _line(self, elapsed_s: float, room: int | None) -> str:
        """Everything but the note; in a narrow terminal (``room`` cells) the counts are the last to go."""
        rate = (self.done - self._start) / elapsed_s if elapsed_s > 0 else 0.0
        speed = f"{rate:.1f}/s" if rate >= 1 or rate == 0 else f"{1 / rate:.1f} s each"
        if self.total is None:
            return _fitting([f"{self.label}  {self.done}", speed, f"{_clock(elapsed_s)} passed"], room)
        left = _clock((self.total - self.done) / rate) if rate > 0 else "?"
        share = min(self.done / self.total, 1.0) if self.total else 1.0
        filled = round(share * _BAR_CELLS)
        bar = f" {'█' * filled}{'·' * (_BAR_CELLS - filled)}" if self._live else ""
        tail = f"{_clock(elapsed_s)} passed" if self.done >= self.total else f"{left} left"
        count = f"{self.done}/{self.total}"
        line = f"{self.label} {bar} {count}  {speed}  {tail}"
        if room is None or _cells(line) <= room:
            return line
        label = _cut(self.label, max(0, room - len(count) - 2))
        return _fitting([f"{label}  {count}" if label else count, speed, tail], room)


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


def _fitting(pieces: list[str], room: int | None) -> str:
    """The first of ``pieces``, and as many of those behind it as ``room`` cells hold."""
    kept = len(pieces)
    while room is not None and kept > 1 and _cells("  ".join(pieces[:kept])) > room:
        kept -= 1
    return "  ".join(pieces[:kept])


def _columns(stream: TextIO) -> int:
    """Cells in a row of the terminal; ``stream`` is asked where standard output is no terminal."""
    try:
        fallback = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        fallback = os.terminal_size((80, 24))
    return shutil.get_terminal_size(fallback).columns or 80


def _cut(text: str, room: int) -> str:
    """As much of ``text`` as ``room`` cells of a terminal hold."""
    while _cells(text) > room:
        text = text[:-1]
    return text


def _cells(text: str) -> int:
    """Cells of a terminal that ``text`` takes; Chinese characters and the like take two."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)
