"""``summary.json``: every system with its scores, the differences asked for, and how all of it was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.evaluation.intervals import interval, paired_difference
from toolkit.evaluation.scoring import SystemScores
from toolkit.runs.atomic import atomic_write_text
from toolkit.runs.metrics import json_safe

__all__ = [
    "COLUMNS",
    "Column",
    "add_seconds",
    "build_differences",
    "build_intervals",
    "build_row",
    "summary_table",
    "write_summary",
]

_DIFFERENCES = ("cider", "reward", "gold", "vqa_accuracy")


@dataclass(frozen=True, slots=True)
class Column:
    """One score of a row: its key in ``summary.json``, heading, decimals and meaning."""

    key: str
    title: str
    digits: int
    explained: str
    higher_is_better: bool = True


COLUMNS = (
    Column("cider", "CIDEr", 3, "CIDEr-D, 0 to 10, on pycocoevalcap's scale"),
    Column("bleu_4", "BLEU-4", 3, "corpus BLEU-4, 0 to 1"),
    Column("rouge_l", "ROUGE-L", 3, "mean ROUGE-L, 0 to 1"),
    Column("vqa_accuracy", "VQA %", 2, "accuracy of answers by the rule of the data set, 0 to 100"),
    Column("yes_no_f1", "yes F1", 3, "F1 of yes in yes/no questions, 0 to 1"),
    Column("yes_ratio", "yes share", 3, "share of yes among the answers to yes/no questions, 0 to 1"),
    Column("reward", "reward", 3, "mean score of the learned reward model on captions"),
    Column("gold", "gold", 3, "mean of the hidden criterion on captions, 0 to 1"),
    Column("mean_tokens", "tokens", 1, "mean length of a caption in tokens, without the end token", False),
)


def build_row(scores: SystemScores) -> dict[str, float | int | None]:
    """One row of the summary; a score without meaning for the system is None."""
    row: dict[str, float | int | None] = {column.key: scores.value(column.key) for column in COLUMNS}
    return {**row, "n": scores.num_images, "n_questions": scores.num_questions}


def build_intervals(scores: SystemScores, *, level: float = 0.95) -> dict[str, dict[str, float]]:
    """The interval of every score of one system."""
    return {
        key: interval(draws, key, level=level).as_dict()
        for draws in scores.draws.values()
        for key in draws.point
        if any(column.key == key for column in COLUMNS)
    }


def build_differences(
    systems: Mapping[str, SystemScores], pairs: Sequence[tuple[str, str]]
) -> dict[str, dict[str, dict[str, float] | None]]:
    """``{"a_minus_b": {"cider", "reward", "gold", "vqa_accuracy": {"mean", "low", "high"} | None}}``."""
    differences: dict[str, dict[str, dict[str, float] | None]] = {}
    for a, b in pairs:
        found: dict[str, dict[str, float] | None] = dict.fromkeys(_DIFFERENCES)
        for task in systems[a].draws.keys() & systems[b].draws.keys():
            first, second = systems[a].draws[task], systems[b].draws[task]
            for key in first.point.keys() & second.point.keys() & set(_DIFFERENCES):
                found[key] = paired_difference(first, second, key).as_dict()
        differences[f"{a}_minus_{b}"] = found
    return differences


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json`` atomically; NaN becomes null."""
    atomic_write_text(path, json.dumps(json_safe(summary), indent=2, ensure_ascii=False) + "\n")


def add_seconds(path: Path, seconds: Mapping[str, float]) -> None:
    """Add the wall time of stages to a summary that is already written."""
    summary = json.loads(path.read_text(encoding="utf-8"))
    summary["seconds"] = {
        **summary.get("seconds", {}),
        **{name: round(value, 1) for name, value in seconds.items()},
    }
    write_summary(path, summary)


def summary_table(summary: Mapping[str, Any]) -> str:
    """The rows and differences as a plain-text table for a terminal, at most 100 columns wide."""
    rows = summary["rows"]
    columns = [column for column in COLUMNS if any(row.get(column.key) is not None for row in rows.values())]
    width = max(12, *(len(name) for name in (*rows, *summary.get("differences", {}))))
    lines = ["".join([" " * width, *(f"{column.title:>10}" for column in columns), f"{'n':>8}"])]
    for name, row in rows.items():
        cells = [_cell(row.get(column.key), column.digits) for column in columns]
        count = row.get("n") or row.get("n_questions") or 0  # questions where there are no captions
        lines.append("".join([name.ljust(width), *(f"{cell:>10}" for cell in cells), f"{count:>8}"]))
    if summary.get("differences"):
        lines += ["", "differences, 95 % paired bootstrap"]
    for name, values in summary.get("differences", {}).items():
        for column in columns:
            found = values.get(column.key)
            if found:
                spread = f"[{found['low']:+.{column.digits}f}, {found['high']:+.{column.digits}f}]"
                lines.append(
                    f"{name.ljust(width)}{column.title:>10}{found['mean']:>+10.{column.digits}f}  {spread}"
                )
    card = summary.get("reward_model")
    if card:
        lines += ["", _reward_model_line(card)]
    return "\n".join(lines) + "\n"


def _reward_model_line(card: Mapping[str, Any]) -> str:
    parts = [f"accuracy {card['accuracy']:.3f}"]
    for key, told in (("text_only_accuracy", "text only"), ("blanked_accuracy", "blanked pictures")):
        if card.get(key) is not None:
            parts.append(f"{told} {card[key]:.3f}")
    return f"reward model on {card['n']} pairs: {', '.join(parts)}"


def _cell(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
