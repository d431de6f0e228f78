"""Official COCO and VQA result files. They are written first; scores are then read from them, never from memory."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import DataError
from toolkit.evaluation.split import Id

__all__ = ["CAPTIONS_FILE", "VQA_FILE", "read_results", "result_kind", "write_results"]

CAPTIONS_FILE = "captions_results.json"
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
    rows = _rows(path)
    for kind, fields in _FIELDS.items():
        if rows and isinstance(rows[0], dict) and set(fields) <= set(rows[0]):
            return kind
    raise DataError(
        str(path),
        "expected rows of {image_id, caption} or {question_id, answer}",
        remedy="give a COCO or VQA result file, or a folder written by the eval stage",
    )


def read_results(path: Path, kind: str, *, expected: Sequence[Id] | None = None) -> dict[Id, str]:
    """The texts of a result file by id.

    Args:
        path: ``.json`` or ``.json.gz``.
        kind: ``caption`` or ``vqa``.
        expected: the ids the references have; None skips the comparison.

    Raises:
        DataError: malformed rows, ids that are repeated, missing or unknown; every problem at once, by id.
    """
    key, value = _FIELDS[kind]
    texts: dict[Id, str] = {}
    problems: list[str] = []
    for number, row in enumerate(_rows(path)):
        if not isinstance(row, dict) or key not in row or not isinstance(row.get(value), str):
            problems.append(f"row {number}: expected {{{key}, {value}}}, found {str(row)[:80]!r}")
        elif row[key] in texts:
            problems.append(f"row {number}: {key} {row[key]!r} appears twice")
        else:
            texts[row[key]] = row[value]
    if expected is not None:
        wanted = set(expected)
        problems += [
            f"{key} {identity!r} has references and no result"
            for identity in expected
            if identity not in texts
        ]
        problems += [
            f"{key} {identity!r} has a result and no references"
            for identity in texts
            if identity not in wanted
        ]
    if problems:
        raise DataError(
            str(path), problems, remedy="one result for every id of the references, and none besides"
        )
    return texts


def _rows(path: Path) -> list[Any]:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        rows = json.loads(raw)
    except FileNotFoundError as error:
        raise DataError(str(path), "no such file", remedy="check the path") from error
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            str(path), f"not a JSON file: {error}", remedy="give a COCO or VQA result file"
        ) from error
    if not isinstance(rows, list):
        raise DataError(str(path), f"expected a list of results, found {type(rows).__name__}")
    return rows
