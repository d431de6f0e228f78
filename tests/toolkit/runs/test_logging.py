"""Log lines and the live progress line on one terminal."""

from __future__ import annotations

import io
import logging

import pytest

from toolkit.runs.logging import setup_logging
from toolkit.runs.progress import Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_a_log_line_stands_by_itself(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    setup_logging()
    bar = Progress(4, "ppo", stream=stream)
    bar.update()
    logging.getLogger("vlm_rlhf.test").info("held-out score 0.7")
    written = stream.getvalue()
    assert written.endswith("I held-out score 0.7\n")
    before = written.rpartition("held-out")[0]
    assert ("\r\x1b[2K" in before.rpartition("ppo")[2]) == terminal
    assert ("\x1b" in written) == terminal
