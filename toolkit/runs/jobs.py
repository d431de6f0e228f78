"""Jobs that depend on each other, several at a time, each in a process; one failure or signal stops them all."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TextIO

from toolkit.errors import Interrupted, RunFailed
from toolkit.runs.logging import setup_logging
from toolkit.runs.offline import quiet_environment
from toolkit.runs.signals import STOP_SIGNALS, StopSignals

__all__ = ["Job", "NamedLines", "run_jobs"]

_log = logging.getLogger("vlm_rlhf.jobs")
_ASK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Job:
    """``work(*arguments)`` under a name, to be done after the jobs named in ``after``. All of it can be pickled."""

    name: str
    after: tuple[str, ...]
    work: Callable[..., None]
    arguments: tuple[Any, ...] = ()


def run_jobs(jobs: Sequence[Job], *, at_once: int, stop: StopSignals) -> None:
    """Do all jobs, up to ``at_once`` side by side, in worker processes that share the cores equally.

    A job starts once those it comes after are done, the first of the list first. When one fails the others are sent
    SIGTERM, so that they end with a checkpoint; a signal that ``stop`` received is passed on to all of them.

    Args:
        jobs: each comes after jobs of this list; a circle is a fault of the caller.
        at_once: number of worker processes.
        stop: the signals of this process; ``installed()`` by the caller.

    Raises:
        Interrupted: a signal ended the jobs.
        RunFailed: a worker died without a word (killed for its memory, most often).
        Exception: the first error of a job, as it was raised there.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // at_once)))
    width = max(len(job.name) for job in jobs)
    waiting = list(jobs)
    running: dict[Future[None], Job] = {}
    done: set[str] = set()
    errors: list[tuple[Job, BaseException]] = []
    passed_on = False
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, mp_context=context, initializer=_begin_worker) as pool:
        try:
            while running or (waiting and not errors and not stop.requested):
                if not errors and not stop.requested:
                    for job in [job for job in waiting if done.issuperset(job.after)]:
                        if len(running) < at_once:
                            waiting.remove(job)
                            _log.info("%d of %d: %s", len(jobs) - len(waiting), len(jobs), job.name)
                            running[pool.submit(_do, job, width)] = job
                if not running:
                    raise RuntimeError(f"jobs wait for each other: {', '.join(job.name for job in waiting)}")
                for future in wait(running, timeout=_ASK_EVERY_S, return_when=FIRST_COMPLETED).done:
                    job, error = running.pop(future), future.exception()
                    if error is None:
                        done.add(job.name)
                    else:
                        errors.append((job, error))
                if running and not passed_on and (errors or stop.received is not None):
                    passed_on = True
                    _signal_workers(stop.received or signal.SIGTERM)
        except BaseException:
            _signal_workers(signal.SIGKILL)
            raise
    _raise_first(errors, stop)


def _raise_first(errors: Sequence[tuple[Job, BaseException]], stop: StopSignals) -> None:
    """Raise what stopped the jobs: an error before the interruptions that it caused."""
    for _, error in sorted(errors, key=lambda item: isinstance(item[1], Interrupted)):
        if isinstance(error, BrokenProcessPool):
            running = " or ".join(job.name for job, other in errors if isinstance(other, BrokenProcessPool))
            raise RunFailed(
                f"the process of {running} died without a message",
                remedy="most often the system ended it for its memory: see the system's log, or set jobs: 1",
            ) from error
        raise error
    stop.raise_if_requested("stopped between two stages; --resume goes on from there")


def _do(job: Job, width: int) -> None:
    """Do a job in a worker; every line it writes carries its name."""
    streams = sys.stdout, sys.stderr
    with NamedLines(job.name.ljust(width), sys.__stderr__ or sys.stderr) as lines:
        sys.stdout = sys.stderr = lines
        try:
            job.work(*job.arguments)
        finally:
            sys.stdout, sys.stderr = streams


def _begin_worker() -> None:
    """Set a worker up: signals come through the parent alone, and it does not outlive the parent."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # else Ctrl-C would reach it twice: from the terminal and from the parent
    # A job catches the signals itself. Between jobs they mean nothing: an idle worker that died of one would take the
    # pool with it, and the job beside it before its checkpoint. A function is not inherited by children, SIG_IGN is.
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    quiet_environment()
    setup_logging()


def _end_with_parent() -> None:
    """Else a worker of a killed parent would go on writing to a directory that ``--resume`` opens."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _signal_workers(number: int) -> None:
    for worker in multiprocessing.active_children():
        if worker.pid is not None and worker.is_alive():
            os.kill(worker.pid, number)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class NamedLines(io.TextIOBase):
    """A text stream that puts a name before every line and writes whole lines only, so that none are mixed.

    It says that it is no terminal: live progress lines of two jobs would overwrite each other.
    """

    def __init__(self, name: str, stream: TextIO) -> None:
        self._name = name
        self._stream = stream
        self._begun = ""

    def write(self, text: str) -> int:
        """Write the lines that ``text`` completes; keep the rest for the next call."""
        *lines, self._begun = (self._begun + text).split("\n")
        if lines:
            self._stream.write("".join(f"{self._name}  {line}\n" for line in lines))
            self._stream.flush()
        return len(text)

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """That of the stream underneath, for children and libraries that write past Python."""
        return self._stream.fileno()

    def close(self) -> None:
        """Write a last line without an end; the stream underneath stays open."""
        if self._begun:
            self.write("\n")
        super().close()
