"""Preference rows written as a folder of its own: JSON lines beside the pictures they name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from toolkit.records import ImageSource, PreferenceRow
from toolkit.runs.atomic import atomic_write_text

__all__ = ["write_preference_rows", "write_rows"]


def write_preference_rows(rows: Iterable[PreferenceRow], path: Path) -> Path:
    """Write ``rows`` to ``path`` (JSON lines) and their pictures to ``images/`` beside it; returns ``path``.

    Pictures are named by the hash of their content, hard-linked where the file system allows it and copied
    otherwise, so that :func:`toolkit.data.preferences.read_preference_rows` finds them inside the folder of the file.
    The file appears only when complete.
    """
    return write_rows((_values(row) for row in rows), path)


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> Path:
    """The same for columns of rows, whose ``images`` are paths or bytes."""
    folder = path.parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[ImageSource, str] = {}
    lines = []
    for row in rows:
        for image in row["images"]:
            if image not in names:
                names[image] = f"images/{_placed(image, folder)}"
        placed = {**row, "images": [names[image] for image in row["images"]]}
        lines.append(json.dumps(placed, ensure_ascii=False))
    atomic_write_text(path, "".join(f"{line}\n" for line in lines))
    return path


def _values(row: PreferenceRow) -> dict[str, Any]:
    values = {
        "sample_id": row.sample_id,
        "task": row.task,
        "prompt": [dict(message) for message in row.prompt],
        "chosen": row.chosen,
        "rejected": row.rejected,
        "images": row.images,
        "source": row.source,
    }
    optional = {"margin": row.margin, "agreement": row.agreement, "tie": row.tie or None}
    optional["weight"] = None if row.weight == 1.0 else row.weight
    stated = {name: value for name, value in optional.items() if value is not None}
    return {**row.meta, **values, **stated}


def _placed(image: ImageSource, folder: Path) -> str:
    """The name of the picture in ``folder``, where it is put unless an equal one is there."""
    data = image.read_bytes() if isinstance(image, Path) else image
    name = f"{hashlib.sha256(data).hexdigest()[:24]}{_suffix(image)}"
    target = folder / name
    if target.exists():
        return name
    part = folder / f".{name}.{os.getpid()}"
    if isinstance(image, bytes):
        part.write_bytes(image)
    else:
        _linked(image, part)
    part.replace(target)
    return name


def _linked(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or links not permitted
        shutil.copyfile(source, target)


def _suffix(image: ImageSource) -> str:
    if isinstance(image, Path):
        return image.suffix.lower()
    with Image.open(BytesIO(image)) as opened:
        return f".{(opened.format or 'img').lower()}"
