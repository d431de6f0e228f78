"""Threads that a failed program does not wait for."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from toolkit.runs.threads import map_in_threads, started


def test_results_come_in_order_and_at_most_so_many_at_a_time() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(item: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002 * (9 - item))
        with lock:
            running -= 1
        return item * item

    assert map_in_threads(work, range(9), threads=3, name="test") == [n * n for n in range(9)]
    assert most == 3
    assert map_in_threads(work, [], threads=3, name="test") == []


def test_after_a_failure_nothing_new_begins_and_nothing_is_waited_for() -> None:
    begun: list[int] = []
    released = threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if item == 0:
            raise ValueError("no")
        released.wait(30)

    before = time.monotonic()
    with pytest.raises(ValueError, match="no"):
        map_in_threads(work, range(50), threads=2, name="test")
    assert time.monotonic() - before < 20
    released.set()
    assert len(begun) < 50


def test_what_goes_wrong_is_the_waiting_thread_s() -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        started(leave, name="test").result(timeout=30)


def test_a_program_ends_though_its_threads_hang() -> None:
    program = (
        "import threading, time\n"
        "from toolkit.runs.threads import map_in_threads, started\n"
        "started(time.sleep, 300, name='test')\n"
        "def work(item):\n    if item == 0:\n        raise ValueError('no')\n    time.sleep(300)\n"
        "map_in_threads(work, [1, 0, 1], threads=3, name='test')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "ValueError: no" in done.stderr
