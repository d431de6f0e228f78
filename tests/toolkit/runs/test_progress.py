from __future__ import annotations

import io
import os
import termios

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


@pytest.mark.parametrize("columns", [1, 9, 20, 30, 50, 70, 90])
@pytest.mark.parametrize("total", [2000, None])
def test_a_live_line_fits_into_the_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: int, total: int | None
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    with Progress(total, "ppo", stream=stream) as bar:
        bar.update(1234, note="reward 0.5 (报酬 0.2)  " + "kl 0.1  " * 20)
    shown = stream.getvalue().replace("\n", "").split("\r\x1b[2K")[1:]
    assert all(len(line.replace("报酬", "....")) <= columns - 1 for line in shown)
    if columns >= 20:
        assert all(("1234/2000" if total else "1234") in line for line in shown)
    if columns == 90:
        assert "reward" in shown[-1]


def test_the_terminal_of_the_stream_counts_where_standard_output_is_piped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.__stdout__", None)
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as stream:
        termios.tcsetwinsize(slave, (10, 40))
        with Progress(10, "steps", stream=stream) as bar:
            bar.update(10, note="x" * 100)
        lines = os.read(master, 4096).decode().rstrip().split("\r\x1b[2K")
    os.close(master)
    assert "10/10" in lines[-1]
    assert len(lines[-1]) <= 39


def test_the_closing_line_keeps_the_newest_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "monotonic", lambda: 1.0)
    for stream in (io.StringIO(), Terminal()):
        with Progress(3, "steps", stream=stream) as bar:
            bar.update(note="loss 0.9")
            bar.update(note="loss 0.5")
            bar.update()
        assert stream.getvalue().endswith("loss 0.5\n")


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
