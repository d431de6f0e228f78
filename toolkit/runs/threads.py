"""Work in threads that never keep a program alive which has failed or was told to stop.

The threads of ``concurrent.futures`` are waited for at the end of the interpreter: a service that hangs would hold a
failed run for as long as its time-outs last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

__all__ = ["map_in_threads", "started"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def started(work: Callable[..., Result], *arguments: Any, name: str) -> Future[Result]:
    """``work(*arguments)``, begun in a thread of its own that is called ``name``."""
    future: Future[Result] = Future()
    threading.Thread(target=_settle, args=(future, work, *arguments), name=name, daemon=True).start()
    return future


def map_in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], *, threads: int, name: str
) -> list[Result]:
    """``work`` of every item, in their order, at most ``threads`` at a time.

    Where one fails, or the caller is interrupted, what has not begun is not begun, and nothing is waited for.
    """
    waiting: SimpleQueue[tuple[Future[Result], Item]] = SimpleQueue()
    results: list[Future[Result]] = [Future() for _ in items]
    for pair in zip(results, items, strict=True):
        waiting.put(pair)
    given_up = threading.Event()

    def serve() -> None:
        while not given_up.is_set():
            try:
                future, item = waiting.get_nowait()
            except Empty:
                return
            _settle(future, work, item)

    for _ in range(min(threads, len(items))):
        threading.Thread(target=serve, name=name, daemon=True).start()
    try:
        done, _ = wait(results, return_when=FIRST_EXCEPTION)
        # All of them, or among them one that raises here.
        return [future.result() for future in results if future in done]
    finally:
        given_up.set()


def _settle(future: Future[Result], work: Callable[..., Result], *arguments: Any) -> None:
    try:
        future.set_result(work(*arguments))
    except BaseException as error:  # noqa: BLE001 - it is the waiting thread's to deal with
        future.set_exception(error)
