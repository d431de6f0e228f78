"""Preference rows: pairs, ties, rated pairs and ranked lists, in JSON lines.

A pair has ``chosen`` and ``rejected``, a list ``completions`` and their ``ratings`` (higher is better; a number,
or a list of numbers where several people rated). Optional: ``tie`` or ``both_bad`` (neither is preferred),
``margin``, ``chosen_ratings`` and ``rejected_ratings`` (several raters of a pair), ``agreement`` (share of raters
that prefer the chosen one), ``weight``, ``source``; other columns, such as ``licence``, are kept. Columns that
every row has: ``toolkit.data.rows``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from toolkit.data.conversations import completion_text
from toolkit.data.files import shown
from toolkit.data.rows import common_columns, read_each, require
from toolkit.records import PreferenceRow, RankedRow

__all__ = ["agreement_of", "pairs_of", "ranked", "read_preference_rows", "read_ranked_rows"]

_TEMPLATE_MARKS = (
    *(
        "<|im_start|>",
        "<|im_end|>",
        "<|start_header_id|>",
        "<|eot_id|>",
        "<|endoftext|>",
        "<end_of_utterance>",
    ),
    *(
        "<start_of_turn>",
        "<end_of_turn>",
        "[INST]",
        "[/INST]",
        "</s>",
        "<image>",
        "\nASSISTANT:",
        "\n\nAssistant:",
    ),
)
_OWN_COLUMNS = {
    *("prompt", "image", "images", "sample_id", "task", "margin", "source", "weight", "tie", "agreement"),
    *("chosen", "rejected", "chosen_ratings", "rejected_ratings", "completions", "ratings"),
}


def read_ranked_rows(path: Path, problems: list[str]) -> list[tuple[str, RankedRow]]:
    """Prompts with two or more completions, best first; a pair is a list of two."""
    return read_each(path, problems, _ranked_row)


def read_preference_rows(path: Path, problems: list[str]) -> list[tuple[str, PreferenceRow]]:
    """Prompts with two different completions, the first preferred (or neither, where ``tie`` is set).

    A list becomes all of its pairs, as Ouyang et al. 2022 train on them.
    """
    return [(where, pair) for where, row in read_ranked_rows(path, problems) for pair in pairs_of(row)]


def pairs_of(row: RankedRow) -> list[PreferenceRow]:
    """Every pair of the row's completions; equal ranks give ties. The pair of a row of two keeps its id."""
    alone = len(row.completions) == 2
    return [
        PreferenceRow(
            sample_id=row.sample_id if alone else f"{row.sample_id}/{better}-{worse}",
            task=row.task,
            prompt=row.prompt,
            chosen=row.completions[better],
            rejected=row.completions[worse],
            images=row.images,
            margin=row.margin if alone else None,
            source=row.source,
            tie=row.ranks[better] == row.ranks[worse],
            agreement=row.agreements[better][worse] if row.agreements else None,
            weight=row.weight,
            meta=row.meta,
        )
        for better, worse in combinations(range(len(row.completions)), 2)
    ]


def ranked(
    texts: Sequence[str], ratings: Sequence[Sequence[float]]
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[tuple[float, ...], ...]]:
    """Completions in the order of their mean rating, best first, their ranks and agreements (``RankedRow``)."""
    means = [fmean(values) for values in ratings]
    order = sorted(range(len(texts)), key=lambda index: -means[index])
    levels = sorted(set(means), reverse=True)
    agreements = tuple(tuple(agreement_of(ratings[a], ratings[b]) for b in order) for a in order)
    return tuple(texts[i] for i in order), tuple(levels.index(means[i]) for i in order), agreements


def agreement_of(first: Sequence[float], second: Sequence[float]) -> float:
    """Share of pairs of ratings in which the first completion's is higher; equal ones count half."""
    return fmean((a > b) + 0.5 * (a == b) for a in first for b in second)


def _ranked_row(values: dict[str, Any], folder: Path, default_id: str) -> RankedRow:
    source = values.get("source", "unknown")
    if not isinstance(source, str):
        raise ValueError(f"'source' is {shown(source)}, expected text")
    build = _list_columns if values.get("completions") is not None else _pair_columns
    common = {
        "source": source,
        "weight": _number(values, "weight", 1.0, above=0.0),
        "meta": {key: value for key, value in values.items() if key not in _OWN_COLUMNS},
    }
    row = RankedRow(**build(values), **common, **common_columns(values, folder, default_id))
    _refuse_template_marks(row)
    return row


def _refuse_template_marks(row: RankedRow) -> None:
    """Texts that were exported with a chat template would be templated twice, and score as nonsense."""
    blocks = [block for message in row.prompt for block in message["content"] if block["type"] == "text"]
    named = [("prompt", block["text"]) for block in blocks] + [("completion", t) for t in row.completions]
    for name, text in named:
        mark = next((mark for mark in _TEMPLATE_MARKS if mark in text), None)
        if mark is not None:
            raise ValueError(
                f"the {name} {shown(text)} holds {shown(mark)}, a mark of a chat template; give the text alone, "
                "as messages: the model's own template is applied"
            )


def _pair_columns(values: dict[str, Any]) -> dict[str, Any]:
    require(values, "chosen", "rejected")
    chosen, rejected = (completion_text(values[name], name) for name in ("chosen", "rejected"))
    if chosen == rejected:
        raise ValueError(f"'chosen' and 'rejected' are the same text {shown(chosen)}; remove the row")
    if not chosen:
        raise ValueError("'chosen' is empty; expected the preferred completion")
    agreement = _agreement(values)
    tie = _flag(values, "tie") or _flag(values, "both_bad")
    return {
        "completions": (chosen, rejected),
        "ranks": (0, 0 if tie else 1),
        "margin": _number(values, "margin", None, least=0.0),
        "agreements": () if agreement is None else ((0.5, agreement), (1.0 - agreement, 0.5)),
    }


def _list_columns(values: dict[str, Any]) -> dict[str, Any]:
    clash = [name for name in ("chosen", "rejected", "margin", "agreement") if values.get(name) is not None]
    if clash:
        raise ValueError(f"'completions' beside {' and '.join(map(repr, clash))}; expected a list or a pair")
    require(values, "ratings")
    texts, ratings = values["completions"], values["ratings"]
    if not isinstance(texts, list) or len(texts) < 2 or not isinstance(ratings, list):
        raise ValueError("'completions' and 'ratings' are lists of at least two entries each")
    if len(texts) != len(ratings):
        raise ValueError(f"{len(texts)} completions and {len(ratings)} ratings; expected as many")
    written = [completion_text(text, "completions") for text in texts]
    if len(set(written)) < len(written):
        raise ValueError("'completions' holds the same text twice; remove one and average its ratings")
    completions, ranks, agreements = ranked(written, [_ratings(value, "ratings") for value in ratings])
    return {"completions": completions, "ranks": ranks, "agreements": agreements}


def _agreement(values: dict[str, Any]) -> float | None:
    """The share of raters for the chosen completion, given or counted."""
    given = _number(values, "agreement", None, least=0.0, most=1.0)
    both = [values.get("chosen_ratings"), values.get("rejected_ratings")]
    if both == [None, None]:
        return given
    if given is not None or None in both:
        raise ValueError("expected 'chosen_ratings' together with 'rejected_ratings', or 'agreement' alone")
    return agreement_of(_ratings(both[0], "chosen_ratings"), _ratings(both[1], "rejected_ratings"))


def _ratings(value: Any, name: str) -> list[float]:
    several = value if isinstance(value, list) else [value]
    if not several or not all(_is_finite(rating) for rating in several):
        raise ValueError(f"'{name}' holds {shown(value)}, expected finite numbers")
    return [float(rating) for rating in several]


def _flag(values: dict[str, Any], name: str) -> bool:
    value = values.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"'{name}' is {shown(value)}, expected true or false")
    return value


def _number(
    values: dict[str, Any],
    name: str,
    default: float | None,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
) -> Any:
    value = values.get(name)
    if value is None:
        return default
    if not _is_finite(value) or value < least or value > most or value <= above:
        limits = [f"of at least {least:g}"] if math.isfinite(least) else []
        limits += [f"above {above:g}"] if math.isfinite(above) else []
        limits += [f"of at most {most:g}"] if math.isfinite(most) else []
        expected = f"a finite number {' and '.join(limits)}"
        raise ValueError(f"'{name}' is {shown(value)}, expected {expected}, or no {name}")
    return float(value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
