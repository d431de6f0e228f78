"""Reference captions and VQA annotations read for scoring alone: no pictures are looked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.data.files import read_json, read_jsonl
from toolkit.errors import DataError
from toolkit.evaluation.split import Id

__all__ = ["read_annotation_rows", "read_reference_captions"]


def read_reference_captions(path: Path, *, like: Sequence[Id] = ()) -> dict[Id, list[str]]:
    """Captions by image id from COCO annotations, ``{image_id: [caption, …]}`` or rows of image_id and captions.

    Args:
        path: ``.json`` or ``.jsonl``, also as ``.gz``.
        like: ids of the results. JSON objects have text keys only: they become numbers where the results' ids are.

    Raises:
        DataError: none of these formats; an image without captions.
    """
    problems: list[str] = []
    value = [row for _, row in read_jsonl(path, problems)] if ".jsonl" in path.suffixes else read_json(path)
    references: dict[Id, list[str]] = {}
    try:
        if isinstance(value, Mapping) and isinstance(value.get("annotations"), list):
            for row in value["annotations"]:
                references.setdefault(row["image_id"], []).append(row["caption"])
        elif isinstance(value, Mapping):
            numbers = all(isinstance(identity, int) for identity in like)
            references = {int(key) if numbers and like else key: list(texts) for key, texts in value.items()}
        else:
            references = {row["image_id"]: list(row["captions"]) for row in value}
    except (KeyError, TypeError, ValueError) as error:
        problems.append(f"expected image ids and captions, found {error!r}")
    problems += [f"image {identity!r} has no caption" for identity, texts in references.items() if not texts]
    if problems or not references:
        raise DataError(
            str(path),
            problems or ["no captions"],
            remedy="give COCO caption annotations, {image_id: [captions]} or rows of image_id and captions",
        )
    return references


def read_annotation_rows(path: Path) -> list[Mapping[str, Any]]:
    """The rows of a VQA annotations file.

    Raises:
        DataError: it is none.
    """
    value = read_json(path)
    rows = value.get("annotations") if isinstance(value, Mapping) else None
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) and "answers" in row for row in rows):
        raise DataError(
            str(path),
            "expected an object with a list 'annotations' whose rows have answers",
            remedy="give the official VQA annotations file",
        )
    return rows
