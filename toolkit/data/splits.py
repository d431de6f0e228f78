"""Which part an image belongs to, and whether parts share pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from toolkit.data.files import escaped, shown
from toolkit.errors import DataError
from toolkit.records import ImageSource, PreferenceRow, PromptRow, RankedRow, SftRow

__all__ = ["check_leakage", "clashing_ids", "leakage_problems", "part_of"]

AnyRow = PromptRow | SftRow | PreferenceRow | RankedRow


def part_of(image_id: int | str) -> Literal["train", "val", "test"]:
    """The part of an image by SHA-1 of its id as text: first 8 bytes modulo 100, 80 train, 10 val, 10 test.

    It depends on the id alone: a picture stays in its part when others come or go, and 12 and "12" agree.
    """
    digest = hashlib.sha1(str(image_id).encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    bucket = int.from_bytes(digest[:8], "big") % 100
    return "train" if bucket < 80 else "val" if bucket < 90 else "test"


def check_leakage(parts: Mapping[str, Sequence[AnyRow]]) -> None:
    """Compare parts (train, val, …) with each other.

    Raises:
        DataError: every picture that two parts share, by image id (of prompt rows) or by content.
    """
    problems = leakage_problems(parts)
    if problems:
        remedy = "remove these pictures from one of the parts, or let 'part' split one file by image id"
        raise DataError(" / ".join(parts), problems, remedy=remedy)


def leakage_problems(parts: Mapping[str, Sequence[AnyRow]]) -> list[str]:
    """One line for each picture that is in two parts: the same image id, or files of equal content."""
    repeated = _repeated_sizes(parts)
    digests: dict[ImageSource, bytes] = {}
    first: dict[str | bytes, tuple[str, AnyRow]] = {}
    problems: dict[str, None] = {}
    for part, rows in parts.items():
        for row in rows:
            for key, what in _keys(row, repeated, digests):
                where, earlier = first.setdefault(key, (part, row))
                if where != part:
                    pair = f"{where} (sample {shown(earlier.sample_id)}) and {part} (sample {shown(row.sample_id)})"
                    problems.setdefault(f"{what} is in both {pair}")
                    break
    return list(problems)


def clashing_ids(rows: Iterable[tuple[str, PromptRow]]) -> list[str]:
    """One line for each image id that stands for different pictures. Scores are grouped by image id.

    Args:
        rows: prompt rows with the place each comes from.
    """
    first: dict[str, tuple[str, tuple[ImageSource, ...]]] = {}
    problems: dict[str, None] = {}
    for where, row in rows:
        place, images = first.setdefault(str(row.image_id), (where, row.images))
        if images != row.images and list(map(_digest, images)) != list(map(_digest, row.images)):
            what = f"image id {shown(row.image_id)} stands for another picture than in {place}"
            problems.setdefault(f"{where}: {what}; give each picture its own image id")
    return list(problems)


def _keys(
    row: AnyRow, repeated: set[int], digests: dict[ImageSource, bytes]
) -> Iterable[tuple[str | bytes, str]]:
    """What may recur in another part, with its name for a message."""
    if isinstance(row, PromptRow):
        yield str(row.image_id), f"image id {shown(row.image_id)}"
    for image in row.images:
        if _size(image) in repeated:
            if image not in digests:
                digests[image] = _digest(image)
            yield digests[image], f"picture {_name(image)}"


def _repeated_sizes(parts: Mapping[str, Sequence[AnyRow]]) -> set[int]:
    """File sizes that occur in more than one part: only such files can be equal, so only they are read."""
    first: dict[int, str] = {}
    repeated = set()
    for part, rows in parts.items():
        for image in {image for row in rows for image in row.images}:
            size = _size(image)
            if first.setdefault(size, part) != part:
                repeated.add(size)
    return repeated


def _size(image: ImageSource) -> int:
    return image.stat().st_size if isinstance(image, Path) else len(image)


def _digest(image: ImageSource) -> bytes:
    """SHA-256 of the encoded picture; of its name where the file is missing, which is reported elsewhere."""
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    digest = hashlib.sha256()
    try:
        with image.open("rb") as file:
            for block in iter(partial(file.read, 1 << 20), b""):
                digest.update(block)
    except OSError:
        digest.update(str(image).encode("utf-8", "surrogateescape"))
    return digest.digest()


def _name(image: ImageSource) -> str:
    return escaped(image) if isinstance(image, Path) else f"of {len(image)} bytes"
