"""JSON lines in TRL's vocabulary: prompt rows and prompt/completion rows.

Columns: ``prompt`` (text or conversation), ``images`` or ``image`` (a path inside the file's folder, or
``{"bytes": base64}``), ``completion`` | ``references`` and ``answers``; optional ``sample_id``, ``task``,
``image_id``. Preference rows: ``toolkit.data.preferences``. Each reader returns ``(file:line, row)``
pairs, appends what is wrong to ``problems`` as ``file:line: …`` and leaves faulty lines out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from toolkit.data.conversations import completion_text, conversation
from toolkit.data.files import escaped, is_id, read_jsonl, shown
from toolkit.data.images import resolve_image
from toolkit.errors import DataError
from toolkit.records import ImageSource, PromptRow, RankedRow, SftRow, Task

__all__ = ["common_columns", "read_each", "read_prompt_rows", "read_sft_rows", "require"]

Row = TypeVar("Row", PromptRow, SftRow, RankedRow)

_OWN_COLUMNS = {"prompt", "image", "images", "references", "answers", "sample_id", "task", "image_id"}


def read_prompt_rows(path: Path, problems: list[str]) -> list[tuple[str, PromptRow]]:
    """Prompts with the ``references`` or ``answers`` they are scored by; other columns go to ``meta``."""
    return read_each(path, problems, _prompt_row)


def read_sft_rows(path: Path, problems: list[str]) -> list[tuple[str, SftRow]]:
    """Prompts with the completion to imitate."""
    return read_each(path, problems, _sft_row)


def read_each(
    path: Path, problems: list[str], build: Callable[[dict[str, Any], Path, str], Row]
) -> list[tuple[str, Row]]:
    """``(file:line, row)`` for every line that ``build(values, folder, default sample id)`` accepts.

    ``build`` raises ValueError or DataError for a faulty line; sample ids are unique within a file.
    """
    first_line: dict[str, int] = {}
    rows = []
    for line, values in read_jsonl(path, problems):
        where = f"{escaped(path)}:{line}"
        try:
            row = build(values, path.parent, f"{path.name.split('.')[0]}:{line}")
        except DataError as error:
            problems.extend(f"{where}: {problem}" for problem in error.problems)
            continue
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        if row.sample_id in first_line:
            earlier = first_line[row.sample_id]
            problems.append(f"{where}: duplicate sample_id {shown(row.sample_id)} (first in line {earlier})")
            continue
        first_line[row.sample_id] = line
        rows.append((where, row))
    return rows


def _prompt_row(values: dict[str, Any], folder: Path, default_id: str) -> PromptRow:
    common = common_columns(values, folder, default_id)
    references, answers = _texts(values, "references"), _texts(values, "answers")
    if any(not reference.strip() for reference in references):
        raise ValueError("'references' holds an empty caption; write it or remove it")
    if answers and not any(answer.strip() for answer in answers):
        raise ValueError("'answers' are all empty")
    image_id = values.get("image_id")
    if image_id is None:
        image_id = _first_name(values) or common["sample_id"]
    if not is_id(image_id):
        raise ValueError(f"'image_id' is {shown(image_id)}, expected a number or text")
    meta = {key: value for key, value in values.items() if key not in _OWN_COLUMNS}
    return PromptRow(**common, image_id=image_id, references=references, answers=answers, meta=meta)


def _sft_row(values: dict[str, Any], folder: Path, default_id: str) -> SftRow:
    require(values, "completion")
    text = completion_text(values["completion"], "completion")
    if not text:
        raise ValueError("'completion' is empty; write it or remove the row")
    return SftRow(**common_columns(values, folder, default_id), completion=text)


def common_columns(values: dict[str, Any], folder: Path, default_id: str) -> dict[str, Any]:
    """The columns that every kind of row has: ``sample_id``, ``task``, ``prompt`` and ``images``.

    Raises:
        ValueError: a column is missing or wrong.
    """
    require(values, "prompt")
    images = tuple(_image(value, folder) for value in _image_values(values))
    sample_id = values.get("sample_id", default_id)
    if not is_id(sample_id):
        raise ValueError(f"'sample_id' is {shown(sample_id)}, expected text")
    return {
        "sample_id": str(sample_id),
        "task": _task(values),
        "prompt": conversation(values["prompt"], images=len(images)),
        "images": images,
    }


def require(values: dict[str, Any], *names: str) -> None:
    """Raise ValueError with the missing columns among ``names``."""
    missing = [f"'{name}'" for name in names if values.get(name) is None]
    if missing:
        raise ValueError(f"no {' and '.join(missing)}; found the columns {', '.join(map(escaped, values))}")


def _task(values: dict[str, Any]) -> Task:
    """The named task; without one, rows with answers are questions and all others captions."""
    task = values.get("task", "vqa" if values.get("answers") else "caption")
    if task == "caption":
        return "caption"
    if task == "vqa":
        return "vqa"
    raise ValueError(f"'task' is {shown(task)}, expected 'caption' or 'vqa'")


def _texts(values: dict[str, Any], name: str) -> tuple[str, ...]:
    texts = values.get(name)
    if texts is None:
        return ()
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"'{name}' is {shown(texts)}, expected a list of at least one text")
    return tuple(text.strip() for text in texts)


def _image_values(values: dict[str, Any]) -> list[Any]:
    if values.get("image") is not None and values.get("images") is not None:
        raise ValueError("both 'image' and 'images'; expected one of them")
    if values.get("image") is not None:
        return [values["image"]]
    images = values.get("images")
    if images is not None and not isinstance(images, list):
        raise ValueError(f"'images' is {shown(images)}, expected a list of paths")
    return images or []


def _first_name(values: dict[str, Any]) -> str | None:
    names = [name for name in _image_values(values) if isinstance(name, str)]
    return names[0] if names else None


def _image(value: Any, folder: Path) -> ImageSource:
    if isinstance(value, dict) and isinstance(value.get("bytes"), str):
        try:
            return base64.b64decode(value["bytes"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"image bytes are not base64 ({error})") from None
    name = value.get("path") if isinstance(value, dict) else value
    if not isinstance(name, str):
        raise ValueError(f"image {shown(value)}: expected a path or {{'bytes': base64}}")
    return resolve_image(folder, name)
