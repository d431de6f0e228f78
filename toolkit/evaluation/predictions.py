"""The crash-safe file of decoded completions: appended batch by batch, never decoded twice.

First line: a header that says what was decoded and how. Each further line is one completion. A run that was
killed leaves complete batches and perhaps a torn one; the torn one is dropped on resume and decoded again as a
whole, so batches have the same members as in an uninterrupted run and greedy decoding gives the same text.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Prediction", "PredictionFile"]

_logger = logging.getLogger("vlm_rlhf.evaluation")
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Prediction:
    """One decoded completion.

    ``text`` is decoded and stripped. ``num_tokens`` counts sampled tokens, the end token included; ``ended`` says
    whether there is one (False: cut at ``max_new_tokens``).
    """

    sample_id: str
    text: str
    num_tokens: int
    ended: bool

    @property
    def content_tokens(self) -> int:
        """Tokens without the end token."""
        return self.num_tokens - int(self.ended)


class PredictionFile:
    """``predictions.jsonl`` of one system.

    Args:
        path: the file; its folder is made when the first line is written.
        header: what the predictions depend on (checkpoint, rows, decoding). A file with another header is
            started anew: its predictions answer another question.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.header = {"format": _FORMAT, **header}

    def read(self) -> dict[str, Prediction]:
        """The predictions by sample id; empty where the file is missing or has another header."""
        lines = self._complete_lines()
        if not lines:
            return {}
        if json.loads(lines[0]) != self.header:
            _logger.warning(
                "%s was decoded from another checkpoint or with other settings: starting anew", self.path
            )
            return {}
        predictions = (Prediction(**json.loads(line)) for line in lines[1:])
        return {prediction.sample_id: prediction for prediction in predictions}

    def keep(self, predictions: Iterable[Prediction]) -> None:
        """Replace the content by the header and ``predictions``; atomic."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(_line(self.header))
            stream.writelines(_line(asdict(prediction)) for prediction in predictions)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.path)

    def append(self, predictions: Sequence[Prediction]) -> None:
        """Add one batch with a single write, flushed to the operating system."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write("".join(_line(asdict(prediction)) for prediction in predictions))

    def _complete_lines(self) -> list[str]:
        if not self.path.exists():
            return []
        raw = self.path.read_bytes()
        # A kill can tear the last line, even inside a character: what follows the last newline is dropped.
        text = raw[: raw.rfind(b"\n") + 1].decode("utf-8")
        return [line for line in text.split("\n") if line]


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=True) + "\n"
