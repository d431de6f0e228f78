"""Log lines on stderr, so that stdout holds results alone."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TextIO

__all__ = ["setup_logging"]


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever ``sys.stderr`` is at the time, so that redirection after the set-up works."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        """A line of its own: on a terminal it takes the place of a live progress line, which comes again below it."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[2K")
        super().emit(record)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """The current standard error."""
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """Ignored: the stream is looked up at every line."""


def setup_logging(*, level: int = logging.INFO, rank: int = 0) -> None:
    """Send the ``vlm_rlhf`` loggers to stderr, once; processes of rank > 0 show warnings only, with their rank."""
    logger = logging.getLogger("vlm_rlhf")
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler())
        logger.propagate = False
    prefix = f"[rank {rank}] " if rank else ""
    for handler in logger.handlers:
        handler.setFormatter(
            logging.Formatter(f"%(asctime)s {prefix}%(levelname).1s %(message)s", "%H:%M:%S")
        )
    logger.setLevel(level if rank == 0 else max(level, logging.WARNING))
    # Libraries about each other: nobody who runs a recipe can do anything about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(accelerate|peft|transformers|trl)\.")
    # It tells at every start on some CPUs that a kernel is missing which this toolkit never uses.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
