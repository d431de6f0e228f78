"""Which part an image belongs to, and whether parts share pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from toolkit.data.files import escaped, shown
from toolkit.errors import DataError
from toolkit.records import ImageSource, PreferenceRow, PromptRow, SftRow

__all__ = ["check_leakage", "leakage_problems", "part_of"]

AnyRow = PromptRow | SftRow | PreferenceRow


def part_of(image_id: int | str) -> Literal["train", "val", "test"]:
    """The part of an image: the first 8 bytes of SHA-1 of its id as text, modulo 100; below 80 train, below 90 val.

    The answer depends on the id alone, so a picture stays in its part when others come or go, and 12 and "12" agree.
    """
    digest = hashlib.sha1(str(image_id).encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    bucket = int.from_bytes(digest[:8], "big") % 100
    return "train" if bucket < 80 else "val" if bucket < 90 else "test"


def check_leakage(parts: Mapping[str, Sequence[AnyRow]]) -> None:
    """Raise when two parts share a picture.

    Raises:
        DataError: every shared picture, by image id or by content.
    """
    problems = leakage_problems(parts)
    if problems:
        remedy = "remove these pictures from one of the parts, or let 'part' split one file by image id"
        raise DataError(f"{' / '.join(parts)}", problems, remedy=remedy)


def leakage_problems(parts: Mapping[str, Sequence[AnyRow]]) -> list[str]:
    """One line for each picture that is in two parts: the same image id, or files (bytes) of equal content."""
    ids: dict[str, tuple[str, AnyRow]] = {}
    digests: dict[bytes, tuple[str, AnyRow]] = {}
    problems: dict[str, None] = {}
    repeated = _repeated_sizes(parts)
    for part, rows in parts.items():
        for row in rows:
            by_id = (
                ids.setdefault(str(row.image_id), (part, row)) if isinstance(row, PromptRow) else (part, row)
            )
            if by_id[0] != part:
                problems[_line(f"image id {shown(row.image_id)}", part, row, *by_id)] = None  # type: ignore[union-attr]
                continue
            for image in row.images:
                if _size(image) in repeated:
                    earlier = digests.setdefault(_digest(image), (part, row))
                    if earlier[0] != part:
                        problems[_line(f"the picture {_name(image)}", part, row, *earlier)] = None
    return list(problems)


def _line(what: str, part: str, row: AnyRow, other_part: str, other: AnyRow) -> str:
    return f"{what} is in {other_part} (sample {shown(other.sample_id)}) and in {part} (sample {shown(row.sample_id)})"


def _repeated_sizes(parts: Mapping[str, Sequence[AnyRow]]) -> set[int]:
    """File sizes that occur in more than one part: only such files can be equal, so only they are read."""
    first: dict[int, str] = {}
    repeated = set()
    for part, rows in parts.items():
        for size in {_size(image) for image in {image for row in rows for image in row.images}}:
            if first.setdefault(size, part) != part:
                repeated.add(size)
    return repeated


def _size(image: ImageSource) -> int:
    return image.stat().st_size if isinstance(image, Path) else len(image)


def _digest(image: ImageSource) -> bytes:
    return hashlib.sha256(image.read_bytes() if isinstance(image, Path) else image).digest()


def _name(image: ImageSource) -> str:
    return escaped(image) if isinstance(image, Path) else f"of {len(image)} bytes"
