"""Preference data in the formats users have, as rows of this toolkit: what ``vlm-rlhf data convert`` does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.data.converters import CONVERTERS, ConvertedRow, Origin
from toolkit.data.files import escaped, read_json, read_jsonl
from toolkit.data.images import check_image
from toolkit.data.preferences import read_ranked_rows
from toolkit.data.writing import write_rows
from toolkit.errors import DataError, UsageError
from toolkit.records import ImageSource

__all__ = ["Conversion", "convert_preferences"]


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was written: rows by file, and what was left out and why (``file:line: …``)."""

    files: dict[Path, int]
    left_out: tuple[str, ...]


def convert_preferences(
    source: Path,
    kind: str,
    out: Path,
    *,
    origin: Origin,
    licence: str | None = None,
    val_share: float = 0.0,
    skip_faulty: bool = False,
) -> Conversion:
    """Write ``out/train.jsonl`` (and ``out/val.jsonl``) with the pictures of their rows in ``out/images``.

    Args:
        source: ``.json``, ``.jsonl`` (also ``.gz``), ``.parquet``, or for Flickr8k's ratings the original ``.txt``.
        kind: a key of ``CONVERTERS``.
        out: folder to write.
        origin: where pictures and captions lie.
        licence: for the rows' ``licence`` column; by default what the data set's own card states.
        val_share: share of the pictures (of the sentences, for NLVR) whose rows go to ``val.jsonl``, by hash;
            rows there whose picture a training row has too are left out.
        skip_faulty: leave faulty rows out instead of refusing the file.

    Raises:
        DataError: faulty rows, or none left.
        UsageError: ``val_share`` is not in [0, 1).
    """
    if not 0.0 <= val_share < 1.0:
        raise UsageError(f"--val-share {val_share}: expected a number of at least 0 and below 1")
    problems: list[str] = []
    rows = list(_sound(CONVERTERS[kind].convert(_values(source, problems), origin, problems), problems))
    if problems and not skip_faulty:
        raise DataError(
            escaped(source), problems, remedy="correct these rows, or add --skip-faulty to leave them out"
        )
    if not rows:
        raise DataError(escaped(source), ["no usable rows", *problems[:20]], remedy=f"is it a {kind} file?")
    stated = licence or CONVERTERS[kind].licence
    parts: dict[str, list[ConvertedRow]] = {"train": [], "val": []}
    for row in rows:
        parts["val" if _share(row.group) < val_share else "train"].append(row)
    parts["val"] = list(_unseen(parts["val"], parts["train"], problems))
    common = {"source": kind, **({"licence": stated} if stated else {})}
    files = {}
    for name, part in parts.items():
        if part:
            path = write_rows(({**common, **row.values} for row in part), out / f"{name}.jsonl")
            wrong: list[str] = []
            read_ranked_rows(path, wrong)
            if wrong:
                raise DataError(escaped(path), wrong, remedy="correct the rows they come from")
            files[path] = len(part)
    return Conversion(files, tuple(problems))


def _values(path: Path, problems: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a file, each with its place."""
    if path.suffix == ".parquet":
        return list(_parquet(path))
    if path.suffix == ".txt":
        lines = path.read_text(encoding="utf-8").splitlines()
        return [(f"{escaped(path)}:{n}", {"line": line}) for n, line in enumerate(lines, 1) if line.strip()]
    if ".jsonl" in path.suffixes:
        return [(f"{escaped(path)}:{line}", values) for line, values in read_jsonl(path, problems)]
    found = read_json(path)
    if not isinstance(found, list) or not all(isinstance(values, dict) for values in found):
        raise DataError(escaped(path), "expected a list of objects", remedy="export it as JSON lines")
    return [(f"{escaped(path)}[{index}]", values) for index, values in enumerate(found)]


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        raise DataError(escaped(path), "no such file")
    from datasets import Image, load_dataset

    rows = load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    for name, feature in (rows.features or {}).items():
        if isinstance(feature, Image):
            rows = rows.cast_column(name, Image(decode=False))
    for number, values in enumerate(rows):
        yield f"{escaped(path)} row {number}", values


def _sound(rows: Iterator[ConvertedRow], problems: list[str]) -> Iterator[ConvertedRow]:
    """The rows whose pictures open."""
    for row in rows:
        wrong = [problem for image in row.values["images"] if (problem := check_image(image))]
        problems.extend(f"{row.where}: {problem}" for problem in wrong)
        if not wrong:
            yield row


def _unseen(
    val: list[ConvertedRow], train: list[ConvertedRow], problems: list[str]
) -> Iterator[ConvertedRow]:
    """The rows of ``val`` without a picture of ``train``: sentences may share one."""
    if not val:
        return
    seen = {_digest(image) for row in train for image in row.values["images"]}
    for row in val:
        if any(_digest(image) in seen for image in row.values["images"]):
            problems.append(f"{row.where}: its picture is in train.jsonl too")
        else:
            yield row


def _digest(image: ImageSource) -> bytes:
    return hashlib.sha256(image.read_bytes() if isinstance(image, Path) else image).digest()


def _share(group: str) -> float:
    """A number in [0, 1) that depends on ``group`` alone."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:6]) / 2**48
