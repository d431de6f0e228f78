"""Whether a reward model is to be trusted: its own diagnostics, and what happens when it is optimised against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.evaluation.report_charts import Series, line_chart
from toolkit.evaluation.report_inputs import StageRun
from toolkit.evaluation.report_text import escape, number, signed

__all__ = ["best_of_n_section", "diagnostics_section"]

_COLOURS = ("var(--accent)", "var(--muted)", "#b8651b", "#2e7d4f")
_CRITERIA = {"scenes": "hidden criterion", "cider": "CIDEr-D"}
_AGREEMENT = {"criterion": "the criterion", "cider": "CIDEr-D", "words": "the number of words"}
_SHARES = (
    ("accuracy", "with the picture"),
    ("blanked_accuracy", "pictures greyed out"),
    ("swapped_accuracy", "pictures of other pairs"),
    ("length_only_accuracy", "length of the text alone"),
)
_FIGURES = (
    ("swap_gap", "own picture's score above another's"),
    ("margin", "mean difference of scores"),
    ("temperature", "temperature"),
    ("ece", "calibration error at that temperature"),
)


def diagnostics_section(runs: Sequence[StageRun]) -> str:
    """A card and a reliability plot of every reward run that measured itself on held-out pairs."""
    measured = [(run.name, run.evaluation) for run in runs if run.evaluation.get("n")]
    cards = "".join(
        f'<div class="grid wide"><div class="card"><h3>{escape(name)}: {found["n"]:,} held-out pairs</h3>'
        f"{_figures(found)}</div>{_reliability(found)}</div>"
        for name, found in measured
    )
    lead = (
        "Shares of pairs ranked right. A model that looks falls towards one half without its pictures. In the plot, "
        "the predicted probability of a preference stands against how often it came true."
    )
    return _section("reward-diagnostics", "Reward diagnostics", lead, cards)


def best_of_n_section(measured: Mapping[str, Any]) -> str:
    """The held-out criterion of best-of-n as n grows, for each way to choose, with intervals in a table."""
    if not measured.get("curves"):
        return ""
    counts = measured["n"]
    series = [
        Series(name, [(n, point["mean"]) for n, point in zip(counts, points, strict=True)], colour)
        for (name, points), colour in zip(measured["curves"].items(), _COLOURS * 2, strict=False)
    ]
    criterion = _CRITERIA.get(measured.get("criterion", ""), "criterion")
    chart = line_chart(f"{criterion} of the best of n", series, unit="n =")
    head = "".join(f"<th>n = {n}</th>" for n in counts)
    rows = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(f'<td>{_span(point)}</td>' for point in points)}</tr>"
        for name, points in measured["curves"].items()
    )
    differences = [
        (name, f"{signed(d['mean'])} [{signed(d['low'])}, {signed(d['high'])}]")
        for name, d in measured.get("differences", {}).items()
    ]
    agreement = [
        (f"τ with {_AGREEMENT.get(name, name)}", number(values.get("tau")))
        for name, values in measured.get("agreement", {}).items()
    ]
    lead = (
        f"{measured.get('prompts', 0):,} prompts; of n samples of {escape(measured.get('system', 'the policy'))} the "
        "one with the highest score is kept, and a criterion the scorer was not told says what it is worth. A curve "
        "that bends down is over-optimised. Differences are at the largest n. Intervals: 95 %, over prompts. "
        "τ: Kendall's, of the score that chooses, within prompts."
    )
    table = f"<table><thead><tr><th>chosen by</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
    pairs = _table([*differences, *agreement])
    below = f'<div class="grid wide">{chart}<div class="card scroll">{pairs}</div></div>'
    content = f'<div class="card scroll">{table}</div>{below}'
    return _section("best-of-n", "Best of n", lead, content)


def _figures(found: Mapping[str, Any]) -> str:
    shares = [(label, f"{100 * found[key]:.1f} %") for key, label in _SHARES if found.get(key) is not None]
    figures = [(label, number(found[key])) for key, label in _FIGURES if found.get(key) is not None]
    invariance = [
        (f"largest change of a score: {name.replace('_', ' ')}", f"{value:.1e}")
        for name, value in (found.get("invariance") or {}).items()
    ]
    spread = [
        (f"disagreement of the members, {name} pictures", number(value))
        for name, value in (found.get("ensemble") or {}).get("std", {}).items()
    ]
    sources = [
        (f"source {name} (n = {count})", f"{100 * share:.1f} %")
        for name, (share, count) in (found.get("by_source") or {}).items()
    ]
    return _table([*shares, *sources, *figures, *spread, *invariance])


def _reliability(found: Mapping[str, Any]) -> str:
    points = found.get("reliability") or []
    if len(points) < 2:
        return ""
    seen = [(point["predicted"], point["observed"]) for point in points]
    perfect = [(seen[0][0], seen[0][0]), (seen[-1][0], seen[-1][0])]
    series = [Series("observed", seen, _COLOURS[0]), Series("predicted", perfect, _COLOURS[1])]
    return line_chart("reliability", series, unit="predicted")


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table><tbody>{cells}</tbody></table>" if rows else ""


def _span(point: Mapping[str, float]) -> str:
    return f"{number(point['mean'])}<br><small>{number(point['low'])} – {number(point['high'])}</small>"


def _section(anchor: str, title: str, lead: str, content: str) -> str:
    if not content:
        return ""
    return f'<section id="{anchor}"><h2>{escape(title)}</h2><p class="lead">{lead}</p>{content}</section>'
