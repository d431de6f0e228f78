"""Questions with their answers in one file, as most benchmarks after VQA v2 are published.

TextVQA and VizWiz (rows with ``answers``), GQA (``{question id: {"imageId", "question", "answer"}}``), POPE, VSR and
NLVR (rows with a text and a ``label``), and files of your own with any of these words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.data.files import escaped, is_id, read_json, read_jsonl, shown
from toolkit.data.vqa import VqaItem
from toolkit.errors import DataError

__all__ = ["read_answered"]

_IDS = ("question_id", "questionId", "id")
_TEXTS = ("question", "text", "sentence", "statement", "caption")
_PICTURES = ("image", "file_name")
_IMAGE_IDS = ("image_id", "imageId")
_TRUTHS = {"true": "yes", "false": "no", "1": "yes", "0": "no"}


def read_answered(path: Path, problems: list[str]) -> list[VqaItem]:
    """The questions of a file in its order; faulty ones are described in ``problems`` and left out.

    The file holds rows (also as JSON lines, also under ``data``, ``questions`` or ``annotations``), or a mapping from
    question id to row. A row has a question (or ``text``, ``sentence``, ``statement``, ``caption``), a picture
    (``image`` or ``file_name``, else ``image_id``) and ``answers``, an ``answer`` or a ``label``; labels that say true
    or false become ``yes`` and ``no``. Rows without an id are numbered from 1.

    Raises:
        DataError: the file as a whole cannot be read, or holds no rows.
    """
    items: dict[int | str, VqaItem] = {}
    for number, (where, row) in enumerate(_rows(path, problems), start=1):
        item = _item(where, row, number, problems)
        if item is None:
            continue
        if item.question_id in items:
            problems.append(f"{where}: duplicate question id {shown(item.question_id)}")
            continue
        items[item.question_id] = item
    return list(items.values())


def _rows(path: Path, problems: list[str]) -> Iterator[tuple[str, Any]]:
    if ".jsonl" in path.suffixes:
        yield from ((f"{escaped(path)}:{line}", row) for line, row in read_jsonl(path, problems))
        return
    try:
        value = read_json(path)
    except DataError:
        lines: list[str] = []
        rows = list(read_jsonl(path, lines))  # POPE's files are JSON lines by another name
        if lines or not rows:
            raise
        yield from ((f"{escaped(path)}:{line}", row) for line, row in rows)
        return
    if isinstance(value, Mapping) and any(key in value for key in _TEXTS):
        value = [value]  # JSON lines with a single line
    if isinstance(value, Mapping):
        wrapped = next((value[key] for key in ("data", "questions", "annotations") if key in value), None)
        value = (
            wrapped
            if wrapped is not None
            else [{"question_id": key, **row} for key, row in value.items() if isinstance(row, Mapping)]
        )
    if not isinstance(value, list):
        raise DataError(
            escaped(path),
            f"{escaped(path)}: expected rows of questions with their answers, found {shown(value)}",
            remedy="give questions and annotations in the official VQA format, or rows with question and answers",
        )
    yield from ((f"{escaped(path)}: row {number}", row) for number, row in enumerate(value, start=1))


def _item(where: str, row: Any, number: int, problems: list[str]) -> VqaItem | None:
    if not isinstance(row, Mapping):
        problems.append(f"{where}: expected an object, found {shown(row)}")
        return None
    question_id = _first(row, _IDS, number)
    text, name = _first(row, _TEXTS), _first(row, _PICTURES)
    image_id = _first(row, _IMAGE_IDS, name)
    answers = _answers(row)
    wrong = []
    if not is_id(question_id):
        wrong.append(f"the question id is {shown(question_id)}, expected a number or text")
    if not isinstance(text, str) or not text.strip():
        wrong.append(f"no question; expected one of {', '.join(_TEXTS)}")
    if not is_id(image_id):
        wrong.append(f"no picture; expected one of {', '.join((*_PICTURES, *_IMAGE_IDS))}")
    if not any(answer.strip() for answer in answers):
        wrong.append("no answers; expected answers, answer or label")
    problems.extend(f"{where}: {problem}" for problem in wrong)
    if wrong or not isinstance(text, str) or not is_id(question_id) or not is_id(image_id):
        return None
    return VqaItem(
        question_id,
        image_id,
        name if isinstance(name, str) else None,
        text.strip(),
        answers,
        {"question_id": question_id, **_types(row)},
        where,
    )


def _first(row: Mapping[str, Any], keys: tuple[str, ...], default: Any = None) -> Any:
    return next((row[key] for key in keys if row.get(key) is not None), default)


def _answers(row: Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(row.get("answers"), list):
        texts = [answer.get("answer") if isinstance(answer, Mapping) else answer for answer in row["answers"]]
        return tuple(text for text in texts if isinstance(text, str))
    answer = _first(row, ("answer", "label"))
    if isinstance(answer, bool | int):
        answer = str(int(answer))
    if not isinstance(answer, str):
        return ()
    return (_TRUTHS.get(answer.strip().lower(), answer),)


def _types(row: Mapping[str, Any]) -> dict[str, str]:
    """Types of question and answer where a row names them: VQA's words, VSR's relation, GQA's structure."""
    structure = row.get("types")
    kind = row.get("question_type") or row.get("relation") or row.get("category")
    if kind is None and isinstance(structure, Mapping):
        kind = structure.get("structural")
    found = {"question_type": kind, "answer_type": row.get("answer_type")}
    return {key: value for key, value in found.items() if isinstance(value, str)}
