"""Reference and result files: COCO and VQA formats, mappings and rows, as JSON or JSON lines, plain or gzipped."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from toolkit.errors import DataError

__all__ = [
    "align_ids",
    "read_answers",
    "read_captions",
    "read_json",
    "read_references",
    "read_rows",
    "write_jsonl",
]

Id = int | str
Value = TypeVar("Value")


def read_json(path: str | Path) -> Any:
    """What a ``.json``, ``.jsonl``, ``.json.gz`` or ``.jsonl.gz`` file holds; a list of rows for JSON lines.

    Raises:
        DataError: the file is missing, unreadable or malformed; a malformed line is named by its number.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except OSError as error:
        raise DataError(str(path), f"cannot be read: {error.strerror or error}") from error
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(str(path), f"damaged: {error}") from error
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return _json_lines(path, text)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        rows = _maybe_json_lines(text)
        if rows is None:
            raise DataError(str(path), f"line {error.lineno}: malformed JSON: {error.msg}") from error
        return rows


def read_references(path: str | Path) -> dict[Id, list[str]]:
    """Image id to reference captions.

    The file is in the COCO caption format, a mapping ``{image_id: [caption, …]}``, or rows
    ``{"image_id", "captions": […]}`` (or ``"caption"``, one reference a row).

    Raises:
        DataError: another format, an image without a caption, an id given twice by rows of lists.
    """
    content = read_json(path)
    if isinstance(content, Mapping) and "annotations" in content:
        return _grouped(path, content["annotations"])
    if isinstance(content, Mapping):
        return _checked_lists(path, content.items())
    if (
        isinstance(content, list)
        and content
        and all(isinstance(row, Mapping) and "captions" in row for row in content)
    ):
        return _checked_lists(path, ((row.get("image_id"), row["captions"]) for row in content))
    if isinstance(content, list):
        return _grouped(path, content)
    raise DataError(str(path), "expected COCO captions, a mapping from image id to captions, or rows")


def read_captions(path: str | Path) -> dict[Id, str]:
    """Image id to caption from a result file ``[{"image_id", "caption"}]``.

    Raises:
        DataError: another format, or an image that comes twice.
    """
    return _read_results(path, "image_id", "caption")


def read_answers(path: str | Path) -> dict[Id, str]:
    """Question id to answer from a result file ``[{"question_id", "answer"}]``.

    Raises:
        DataError: another format, or a question that comes twice.
    """
    return _read_results(path, "question_id", "answer")


def read_rows(path: str | Path, key: str, fields: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of a file, or those under ``key`` of a JSON object; each has all ``fields``.

    Raises:
        DataError: there are no rows, or a row lacks a field.
    """
    content = read_json(path)
    rows = content.get(key) if isinstance(content, Mapping) else content
    if not isinstance(rows, list):
        raise DataError(str(path), f"expected rows, or an object with rows under {key!r}")
    needed = list(fields)
    problems = [
        f"row {number}: expected an object with {', '.join(needed)}"
        for number, row in enumerate(rows, start=1)
        if not isinstance(row, Mapping) or any(field not in row for field in needed)
    ]
    if problems:
        raise DataError(str(path), problems)
    return rows


def align_ids(references: Mapping[Id, Value], results: Mapping[Id, object]) -> dict[Id, Value]:
    """``references`` with the ids of ``results``: keys of a JSON mapping are text where the results have numbers."""
    by_text = {str(image_id): image_id for image_id in results}
    return {by_text.get(str(image_id), image_id): value for image_id, value in references.items()}


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line; the file appears whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as stream:
            for row in rows:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        temporary.replace(path)
    except OSError as error:
        raise DataError(str(path), f"cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _json_lines(path: Path, text: str) -> list[Any]:
    rows, problems = [], []
    # Not splitlines(): a caption may hold characters that it takes for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                problems.append(f"line {number}: malformed JSON: {error.msg}")
    if problems:
        raise DataError(str(path), problems)
    return rows


def _maybe_json_lines(text: str) -> list[Any] | None:
    """Rows of a file that holds JSON lines under another name (POPE's do), or None."""
    try:
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except json.JSONDecodeError:
        return None


def _valid_id(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool) and value != ""


def _checked_lists(path: str | Path, items: Iterable[tuple[Any, Any]]) -> dict[Id, list[str]]:
    references: dict[Id, list[str]] = {}
    problems = []
    for image_id, captions in items:
        if not _valid_id(image_id):
            problems.append(f"image id {image_id!r} is neither text nor a whole number")
        elif (
            not isinstance(captions, list)
            or not captions
            or not all(isinstance(text, str) for text in captions)
        ):
            problems.append(f"image {image_id!r}: expected a list of at least one caption")
        elif image_id in references:
            problems.append(f"image {image_id!r} comes twice")
        else:
            references[image_id] = captions
    if problems:
        raise DataError(str(path), problems)
    return references


def _grouped(path: str | Path, rows: object) -> dict[Id, list[str]]:
    references: dict[Id, list[str]] = {}

    def add(image_id: Id, text: str) -> str | None:
        references.setdefault(image_id, []).append(text)
        return None

    _each_row(path, rows, "image_id", "caption", add)
    return references


def _read_results(path: str | Path, id_key: str, text_key: str) -> dict[Id, str]:
    content = read_json(path)
    if isinstance(content, Mapping):  # {"image_id": …} alone in a JSON lines file, or COCO's wrapper
        content = content.get("annotations", [content])
    results: dict[Id, str] = {}

    def add(row_id: Id, text: str) -> str | None:
        if row_id in results:
            return f"{id_key} {row_id!r} comes twice"
        results[row_id] = text
        return None

    _each_row(path, content, id_key, text_key, add)
    return results


def _each_row(
    path: str | Path, rows: object, id_key: str, text_key: str, add: Callable[[Id, str], str | None]
) -> None:
    """Give every row to ``add``, which returns a problem or None; all problems are raised together."""
    if not isinstance(rows, list):
        raise DataError(str(path), f'expected rows {{"{id_key}", "{text_key}"}}')
    problems = []
    for number, row in enumerate(rows, start=1):
        if (
            not isinstance(row, Mapping)
            or not _valid_id(row.get(id_key))
            or not isinstance(row.get(text_key), str)
        ):
            problems.append(
                f'row {number}: expected {{"{id_key}": whole number or text, "{text_key}": text}}'
            )
            continue
        problem = add(row[id_key], row[text_key])
        if problem is not None:
            problems.append(f"row {number}: {problem}")
    if problems:
        raise DataError(str(path), problems)
