from __future__ import annotations

import io

import pytest

from toolkit.runs import progress as module
from toolkit.runs.progress import Progress, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_lines_are_plain_and_few(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(50), label="scoring")) == list(range(50))
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("scoring  50/50  ")
    assert "\r" not in captured.err


def test_plain_lines_come_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with Progress(4, "steps", stream=stream) as bar:
        for _ in range(4):
            bar.update(note="loss 0.5")
    assert stream.getvalue().splitlines() == [
        "steps  2/4  10.0 s each  0:20 left  loss 0.5",
        "steps  4/4  10.0 s each  0:40 passed  loss 0.5",
    ]


def test_a_terminal_gets_one_live_line() -> None:
    stream = Terminal()
    with Progress(10, "steps", start=5, stream=stream) as bar:
        bar.update(5)
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("passed\n")
    assert f"{'█' * 24} 10/10" in text


def test_unknown_and_zero_totals() -> None:
    stream = io.StringIO()
    with Progress(None, "reading", stream=stream) as bar:
        bar.update()
    with Progress(0, "nothing", stream=stream):
        pass
    assert "reading  1  " in stream.getvalue()
    assert "nothing  0/0" in stream.getvalue()


def test_other_ranks_are_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    list(progress([1, 2], label="x"))
    assert capsys.readouterr().err == ""
