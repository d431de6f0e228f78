"""Subgroups of images or questions by a column: of the annotations, of the references' rows, or of a file of yours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import DataError, UsageError
from toolkit.evaluation.intervals import (
    Draws,
    Indices,
    bootstrap,
    interval,
    p_value,
    paired_difference,
    pooled_mean,
)
from toolkit.evaluation.scoring import CaptionResult, VqaResult
from toolkit.evaluation.split import Id

__all__ = ["GroupScores", "compare_captions", "compare_answers", "members", "read_groups"]

GroupScores = dict[str, Any]
_MOST_GROUPS = 100


def read_groups(files: Iterable[Path], key: str, column: str) -> dict[Id, Any]:
    """Value of ``column`` by id, from the first of ``files`` whose rows have it.

    A file is JSON or JSON lines: rows, or an object with rows under ``annotations``, ``questions`` or ``images``.

    Raises:
        UsageError: no file has such a column; names those that there are.
        DataError: a file cannot be read.
    """
    from toolkit.metrics.files import read_json

    seen: set[str] = set()
    for path in files:
        if not path.exists():
            continue
        content = read_json(path)
        if isinstance(content, Mapping):
            content = next((content[name] for name in ("annotations", "questions") if name in content), [])
        rows = [row for row in content if isinstance(row, Mapping) and key in row]
        if key == "image_id":  # an image has several questions: their columns are none of its own
            rows = [row for row in rows if "question_id" not in row]
        if rows and all(column in row for row in rows):
            return {row[key]: row[column] for row in rows}
        seen |= {name for row in rows for name, value in row.items() if not isinstance(value, list | dict)}
    known = ", ".join(sorted(seen - {key})) or "none"
    raise UsageError(
        f"--group-by {column}: no column of that name by {key}; there are {known}",
        remedy=f"give --groups FILE with rows {{{key!r}, {column!r}}}",
    )


def members(values: Mapping[Id, Any], ids: Sequence[Id], column: str) -> dict[str, Indices]:
    """Places in ``ids`` of each group, groups in the order of their names.

    Raises:
        DataError: an id without a value.
        UsageError: more groups than a table can show.
    """
    by_text = {str(key): value for key, value in values.items()}
    missing = [f"{identity!r} has no {column}" for identity in ids if str(identity) not in by_text]
    if missing:
        raise DataError(f"groups by {column}", missing)
    groups: dict[str, list[int]] = {}
    for place, identity in enumerate(ids):
        groups.setdefault(str(by_text[str(identity)]), []).append(place)
    if len(groups) > _MOST_GROUPS:
        raise UsageError(f"--group-by {column} makes {len(groups)} groups, at most {_MOST_GROUPS} are shown")
    return {name: np.asarray(groups[name]) for name in sorted(groups)}


def compare_captions(
    a: CaptionResult, b: CaptionResult, places: Indices, names: Sequence[str], *, resamples: int
) -> GroupScores:
    """Scores of the images at ``places`` and their paired differences; document frequencies stay those of all."""

    def drawn(result: CaptionResult) -> Draws:
        return bootstrap(
            lambda indices: result.statistic(places[indices]), units=places.size, resamples=resamples
        )

    return {"n": int(places.size), "scores": told(drawn(a), drawn(b), names)}


def compare_answers(
    a: VqaResult, b: VqaResult, images: Sequence[Any], places: Indices, *, resamples: int
) -> GroupScores:
    """Accuracy on the questions at ``places``; units of resampling are their ``images``."""
    own: dict[Any, list[int]] = {}
    for place in places.tolist():
        own.setdefault(images[place], []).append(place)

    def drawn(result: VqaResult) -> Draws:
        values = [result.accuracies[group].tolist() for group in own.values()]
        return bootstrap(pooled_mean("vqa_accuracy", values), units=len(own), resamples=resamples)

    return {"n": int(places.size), "scores": told(drawn(a), drawn(b), ["vqa_accuracy"])}


def told(a: Draws, b: Draws, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Both values, the paired difference and its p-value, by score."""
    return {
        name: {
            "a": interval(a, name).as_dict(),
            "b": interval(b, name).as_dict(),
            "difference": paired_difference(a, b, name).as_dict(),
            "p_value": p_value(a, b, name),
        }
        for name in names
    }
