from __future__ import annotations

import os
import signal

import pytest

from toolkit.errors import Interrupted
from toolkit.runs.signals import StopSignals


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)]
)
def test_a_signal_asks_for_a_stop(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with StopSignals().installed() as stop:
        stop.raise_if_requested("not yet")
        os.kill(os.getpid(), number)
        assert stop.requested
        with pytest.raises(Interrupted, match="step 3") as caught:
            stop.raise_if_requested("stopped at step 3")
    assert caught.value.exit_code == code
    assert signal.getsignal(number) == before


def test_a_second_signal_stops_at_once() -> None:
    with StopSignals().installed():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_program_may_ask_itself() -> None:
    stop = StopSignals()
    stop.request()
    assert stop.interrupted("x").exit_code == 143
