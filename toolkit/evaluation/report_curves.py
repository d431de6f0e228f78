"""Which numbers of a ``metrics.jsonl`` become curves, and in which order."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.evaluation.report_charts import Series, line_chart
from toolkit.evaluation.report_inputs import StageRun
from toolkit.evaluation.report_text import escape

__all__ = ["curves_section"]

_LEFT_OUT = ("step", "epoch", "num_tokens", "total_flos", "learning_rate", "seconds", "time", "iteration")
# What a reader looks for first; what matches none follows, the details last and behind a fold.
_FIRST = (
    r"^cider$",
    r"^score$",  # what chooses best/
    r"^reward/total$",
    r"^learned$",
    r"^(reward/[^/]+|rewards/(accuracies|margins))$",
    r"^reward/total/calibrated$",
    r"^(eval_)?accuracy$",
    r"^kl/k1",
    r"vision_gap",
    r"entropy",
    r"^(policy/|value/)?loss$",
    r"margin",
    r"explained_variance",
    r"tokens$",
)
_LAST = r"/(normalised|weighted)$|clip_fraction$|logits|logps|coefficient|optimizer|grad_norm"
_VERY_LAST = r"^reward/(flat|failed|unscored)_fraction$"
_SHOWN = 9
_COLOURS = ("var(--accent)", "var(--c1)")


def curves_section(runs: Sequence[StageRun]) -> str:
    """Small charts for every run that logged at least two steps; training and validation share a chart."""
    blocks = [block for run in runs if (block := _run_curves(run))]
    if not blocks:
        return ""
    return (
        '<section id="curves"><h2>Curves</h2><p class="lead">From each run\'s metrics.jsonl. Long series are drawn '
        "faintly, with their running mean on top.</p>" + "".join(blocks) + "</section>"
    )


def _run_curves(run: StageRun) -> str:
    charts = _charts(run.metrics)
    if not charts:
        return ""
    shown, folded = charts[:_SHOWN], charts[_SHOWN:]
    more = (
        f'<details><summary>{len(folded)} more</summary><div class="grid">{"".join(folded)}</div></details>'
        if folded
        else ""
    )
    return (
        f'<h3 style="margin-top:22px">{escape(run.name)}</h3><div class="grid">{"".join(shown)}</div>{more}'
    )


def _charts(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = _columns(lines)
    groups: dict[str, list[tuple[str, list[tuple[float, float]]]]] = {}
    for key, points in columns.items():
        validation = key.startswith(("eval_", "val_", "val/", "eval/"))
        base = key.split("_" if "_" in key[:5] else "/", 1)[1] if validation else key
        groups.setdefault(base, []).append(("validation" if validation else "training", points))
    ordered = sorted(groups, key=lambda name: (_rank(name), name))
    return [
        line_chart(
            name,
            [
                Series(label, points, _COLOURS[label == "validation"])
                for label, points in sorted(groups[name], key=lambda item: item[0])
            ],
        )
        for name in ordered
    ]


def _columns(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    columns: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for key, value in line.items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if number and not key.endswith(_LEFT_OUT):
                columns.setdefault(key, []).append((float(line["step"]), float(value)))
    return {key: points for key, points in columns.items() if len({x for x, _ in points}) > 1}


def _rank(name: str) -> int:
    if re.search(_VERY_LAST, name):
        return len(_FIRST) + 2
    if re.search(_LAST, name):
        return len(_FIRST) + 1
    return next((place for place, pattern in enumerate(_FIRST) if re.search(pattern, name)), len(_FIRST))
