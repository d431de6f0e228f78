"""Caption files in the formats people have: COCO annotations, ``{file name: [captions]}``, and rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.data.files import escaped, is_id, read_json, read_jsonl, shown
from toolkit.errors import DataError

__all__ = ["CaptionItem", "read_captions"]


@dataclass(frozen=True, slots=True)
class CaptionItem:
    """A picture and its reference captions (at least one, stripped); ``where`` names its entry in the file."""

    image_id: int | str
    file_name: str
    captions: tuple[str, ...]
    where: str


def read_captions(path: Path, problems: list[str]) -> list[CaptionItem]:
    """The pictures of a caption file, in its order; faulty entries go to ``problems`` and are left out.

    Formats, told apart by their shape, ``.json`` or ``.jsonl``, each also as ``.gz``:
    COCO's ``{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}``;
    ``{file name: [caption, …]}``, where the file name is the image id; rows
    ``{"image_id", "file_name", "captions": […]}``, where ``file_name`` may be called ``image`` and a file name
    may serve as the id or a textual id as the file name.

    Raises:
        DataError: the file as a whole cannot be read, or has none of these shapes.
    """
    if ".jsonl" in path.suffixes:
        rows = [(f"{escaped(path)}:{line}", row) for line, row in read_jsonl(path, problems)]
        return _unique(_from_rows(rows, problems), problems)
    value = read_json(path)
    if isinstance(value, dict) and isinstance(value.get("annotations"), list):
        return _from_coco(path, value, problems)
    if isinstance(value, dict) and "annotations" not in value:
        entries = [(f"{escaped(path)}: image {shown(name)}", name, texts) for name, texts in value.items()]
        return [item for entry in entries if (item := _item(entry[0], entry[1], *entry[1:], problems))]
    if isinstance(value, list):
        rows = [(f"{escaped(path)}: row {number}", row) for number, row in enumerate(value, start=1)]
        return _unique(_from_rows(rows, problems), problems)
    raise DataError(
        escaped(path),
        f"{escaped(path)}: not a caption file: expected COCO annotations, {{file name: [captions]}} or rows "
        "with image_id, file_name and captions",
        remedy="convert the file to one of these",
    )


def _from_coco(path: Path, value: Mapping[str, Any], problems: list[str]) -> list[CaptionItem]:
    images: dict[int | str, tuple[str, Any]] = {}
    for number, entry in enumerate(_entries(value, "images", path, problems), start=1):
        where = f"{escaped(path)}: images entry {number}"
        image_id = entry.get("id")
        if not is_id(image_id):
            problems.append(f"{where}: 'id' is {shown(image_id)}, expected a number or text")
        elif image_id in images:
            problems.append(f"{where}: duplicate image id {shown(image_id)}; keep one entry for each picture")
        else:
            images[image_id] = (f"{escaped(path)}: image id {escaped(image_id)}", entry.get("file_name"))
    texts: dict[int | str, list[Any]] = {image_id: [] for image_id in images}
    for number, entry in enumerate(_entries(value, "annotations", path, problems), start=1):
        image_id = entry.get("image_id")
        if is_id(image_id) and image_id in texts:
            texts[image_id].append(entry.get("caption"))
        else:
            problems.append(
                f"{escaped(path)}: annotation {number}: image id {shown(image_id)} is not in 'images'"
            )
    built = (
        _item(where, image_id, name, texts[image_id], problems) for image_id, (where, name) in images.items()
    )
    return [item for item in built if item is not None]


def _entries(
    value: Mapping[str, Any], key: str, path: Path, problems: list[str]
) -> Iterable[Mapping[str, Any]]:
    entries = value.get(key)
    if not isinstance(entries, list):
        problems.append(f"{escaped(path)}: '{key}' is missing or no list")
        return []
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            problems.append(
                f"{escaped(path)}: {key} entry {number}: expected an object, found {shown(entry)}"
            )
    return [entry if isinstance(entry, dict) else {} for entry in entries]


def _from_rows(rows: list[tuple[str, Any]], problems: list[str]) -> Iterable[CaptionItem]:
    for where, row in rows:
        if not isinstance(row, dict):
            problems.append(f"{where}: expected an object, found {shown(row)}")
            continue
        name = row.get("file_name", row.get("image"))
        image_id = row.get("image_id", name)
        if not is_id(image_id):
            problems.append(f"{where}: 'image_id' is {shown(image_id)}, expected a number or text")
            continue
        name = image_id if name is None and isinstance(image_id, str) else name
        item = _item(where, image_id, name, row.get("captions"), problems)
        if item is not None:
            yield item


def _item(where: str, image_id: int | str, name: Any, texts: Any, problems: list[str]) -> CaptionItem | None:
    before = len(problems)
    if not isinstance(name, str) or not name.strip():
        problems.append(f"{where}: 'file_name' is {shown(name)}, expected the picture's path")
    if not isinstance(texts, list) or not texts:
        problems.append(f"{where}: picture without reference captions; add one or remove the picture")
        texts = []
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            problems.append(f"{where}: caption {number} is {shown(text)}, expected text")
        elif not text.strip():
            problems.append(f"{where}: caption {number} is empty; write it or remove it")
    if len(problems) > before:
        return None
    return CaptionItem(image_id, name, tuple(text.strip() for text in texts), where)


def _unique(items: Iterable[CaptionItem], problems: list[str]) -> list[CaptionItem]:
    first: dict[int | str, CaptionItem] = {}
    for item in items:
        if item.image_id in first:
            problems.append(
                f"{item.where}: duplicate image id {shown(item.image_id)} (first in {first[item.image_id].where}); "
                "put all captions of a picture into one row"
            )
        else:
            first[item.image_id] = item
    return list(first.values())
