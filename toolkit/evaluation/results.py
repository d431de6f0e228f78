"""Official COCO and VQA result files. They are written first; scores are then read from them, never from memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from toolkit.errors import DataError
from toolkit.evaluation.split import Id

__all__ = ["CAPTIONS_FILE", "SAMPLES_FILE", "VQA_FILE", "read_results", "result_kind", "write_results"]

CAPTIONS_FILE = "captions_results.json"
SAMPLES_FILE = "captions_samples.json"
VQA_FILE = "vqa_results.json"
_FIELDS = {"caption": ("image_id", "caption"), "vqa": ("question_id", "answer")}


def write_results(path: Path, kind: str, texts: Mapping[Id, str] | Iterable[tuple[Id, str]]) -> None:
    """Write ``[{"image_id", "caption"}]`` (kind ``caption``) or ``[{"question_id", "answer"}]`` (kind ``vqa``)."""
    key, value = _FIELDS[kind]
    pairs = texts.items() if isinstance(texts, Mapping) else texts
    rows = [{key: identity, value: text} for identity, text in pairs]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def result_kind(path: Path) -> str:
    """``caption`` or ``vqa``, by the keys of the first row of a result file.

    Raises:
        DataError: the file is no result file.
    """
    from toolkit.metrics.files import read_json

    rows = read_json(path)
    first = rows[0] if isinstance(rows, list) and rows else None
    for kind, fields in _FIELDS.items():
        if isinstance(first, dict) and set(fields) <= set(first):
            return kind
    raise DataError(
        str(path),
        "expected rows of {image_id, caption} or {question_id, answer}",
        remedy="give a COCO or VQA result file, or a folder written by the eval stage",
    )


def read_results(path: Path, kind: str, *, expected: Sequence[Id] | None = None) -> dict[Id, str]:
    """The texts of a result file by id.

    Args:
        path: ``.json`` or ``.jsonl``, also as ``.gz``.
        kind: ``caption`` or ``vqa``.
        expected: the ids the references have; None skips the comparison.

    Raises:
        DataError: malformed rows, ids that are repeated; ids that are missing or unknown. Each id is named.
    """
    from toolkit.metrics.files import read_answers, read_captions

    texts = read_captions(path) if kind == "caption" else read_answers(path)
    if expected is None:
        return texts
    key, wanted = _FIELDS[kind][0], set(expected)
    problems = [
        f"{key} {identity!r} has references and no result" for identity in expected if identity not in texts
    ]
    problems += [
        f"{key} {identity!r} has a result and no references" for identity in texts if identity not in wanted
    ]
    if problems:
        raise DataError(
            str(path), problems, remedy="one result for every id of the references, and none besides"
        )
    return texts
