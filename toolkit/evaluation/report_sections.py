"""The sections of the report page, each a function from what was read to HTML; empty where there is nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.evaluation.intervals import Interval
from toolkit.evaluation.report_charts import Bar, bar_list, interval_strips
from toolkit.evaluation.report_inputs import StageRun, data_url
from toolkit.evaluation.report_style import system_colour
from toolkit.evaluation.report_text import escape, number, signed
from toolkit.evaluation.summary import COLUMNS, Column

__all__ = [
    "differences_section",
    "headline",
    "reward_model_section",
    "runs_section",
    "samples_section",
    "table_section",
]

_BASELINES = ("blind", "human")


def headline(summary: Mapping[str, Any]) -> str:
    """Tiles with the differences that the evaluation was asked for, CIDEr first."""
    tiles = []
    for name, values in summary.get("differences", {}).items():
        shown = next((c for c in COLUMNS if values.get(c.key)), None)
        if shown is None:
            continue
        found = _interval(values[shown.key])
        verdict = "clear of zero" if found.excludes_zero else "within chance"
        tiles.append(
            f'<div class="card tile"><div class="what">{escape(name.replace("_", " "))}</div>'
            f'<div class="big">{signed(found.mean, shown.digits)} <span class="what">{escape(shown.title)}</span></div>'
            f'<div class="why">95 %: {signed(found.low, shown.digits)} to {signed(found.high, shown.digits)}, '
            f"{verdict}</div></div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def table_section(summary: Mapping[str, Any]) -> str:
    """Every system and baseline with its scores and their intervals."""
    rows: Mapping[str, Mapping[str, Any]] = summary.get("rows", {})
    if not rows:
        return ""
    columns = [column for column in COLUMNS if any(row.get(column.key) is not None for row in rows.values())]
    best = {column.key: _best(rows, column) for column in columns}
    head = "".join(
        f'<th title="{escape(column.explained)}">{escape(column.title)}</th>' for column in columns
    )
    body = "".join(_table_row(name, summary, columns, best) for name in rows)
    counts = _counts(rows)
    return _section(
        "scores",
        "Scores",
        f"{counts} Greedy decoding. Under each score, its 95 % bootstrap interval over images. "
        f"{escape(_baseline_text(summary))}",
        '<div class="card scroll"><table>'
        f"<thead><tr><th>system</th>{head}</tr></thead><tbody>{body}</tbody></table></div>",
    )


def differences_section(summary: Mapping[str, Any]) -> str:
    """One card a score: the paired differences between systems with their intervals."""
    differences: Mapping[str, Mapping[str, Any]] = summary.get("differences", {})
    cards = []
    for column in COLUMNS:
        rows = [
            (name.replace("_minus_", " − "), _interval(values[column.key]))
            for name, values in differences.items()
            if values.get(column.key)
        ]
        if rows:
            strips = interval_strips(rows, digits=column.digits)
            cards.append(f'<div class="card"><h3>{escape(column.title)}</h3>{strips}</div>')
    if not cards:
        return ""
    return _section(
        "differences",
        "Differences",
        "Paired bootstrap over images: both systems are scored on the same resamples. A coloured strip does not touch "
        "zero.",
        f'<div class="grid wide">{"".join(cards)}</div>',
    )


def reward_model_section(summary: Mapping[str, Any]) -> str:
    """How often the reward model agrees with the preference pairs, by source and without the picture."""
    card = summary.get("reward_model")
    if not card:
        return ""
    twins = (
        ("with the picture", "accuracy", "var(--accent)"),
        ("picture greyed out", "blanked_accuracy", "var(--muted)"),
        ("trained without pictures", "text_only_accuracy", "var(--muted)"),
    )
    bars = [
        Bar(label, card[key], f"{100 * card[key]:.1f} %", 0.5, colour)
        for label, key, colour in twins
        if card.get(key) is not None
    ]
    sources = [
        Bar(f"{name} (n = {values['n']})", values["accuracy"], f"{100 * values['accuracy']:.1f} %", 0.5)
        for name, values in card.get("by_source", {}).items()
    ]
    cards = f'<div class="card"><h3>All {card["n"]:,} held-out pairs</h3>{bar_list(bars)}</div>'
    if sources:
        cards += f'<div class="card"><h3>By source of the pairs</h3>{bar_list(sources)}</div>'
    return _section(
        "reward-model",
        "Reward model",
        "Share of preference pairs in which the preferred text scores higher. The mark is chance.",
        f'<div class="grid wide">{cards}</div>',
    )


def samples_section(samples: Sequence[Mapping[str, Any]], folder: Path | None, systems: list[str]) -> str:
    """Pictures of the test split with what every system says about them and what each text earns."""
    if not samples or folder is None:
        return ""
    cards = "".join(_sample(sample, folder, systems) for sample in samples)
    return _section(
        "samples",
        "Samples",
        "Drawn from the test split by a fixed rule, not chosen. Per-image scores stand beside each text.",
        f'<div class="samples">{cards}</div>',
    )


def runs_section(runs: Sequence[StageRun]) -> str:
    """What was run: stage, model, time, and each full recipe behind a fold."""
    if not runs:
        return ""
    rows = "".join(
        f"<tr><td>{escape(run.name)}</td><td>{escape(run.stage)}</td>"
        f"<td>{_seconds(run.seconds)}</td><td>{_last_step(run)}</td><td>{_samples_link(run)}</td></tr>"
        for run in runs
    )
    folds = "".join(
        f"<details><summary>{escape(run.name)}: full recipe</summary>"
        f"<pre>{escape(run.recipe, keep_newlines=True)}</pre></details>"
        for run in runs
        if run.recipe
    )
    head = "<tr><th>run</th><th>stage</th><th>time</th><th>steps</th><th></th></tr>"
    table = (
        f'<div class="scroll"><table class="runs"><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
    )
    return _section(
        "runs", "What was run", "In the order of the chain.", f'<div class="card">{table}{folds}</div>'
    )


def _samples_link(run: StageRun) -> str:
    return f'<a href="{escape(run.samples_page)}">samples with pictures</a>' if run.samples_page else ""


def _section(anchor: str, title: str, lead: str, content: str) -> str:
    return f'<section id="{anchor}"><h2>{escape(title)}</h2><p class="lead">{lead}</p>{content}</section>'


def _table_row(
    name: str, summary: Mapping[str, Any], columns: Sequence[Column], best: Mapping[str, float | None]
) -> str:
    row = summary["rows"][name]
    spans = summary.get("intervals", {}).get(name, {})
    cells = []
    for column in columns:
        value, span = row.get(column.key), spans.get(column.key)
        small = f"<small>{_span(span, column.digits)}</small>" if span else ""
        mark = (
            ' class="best"'
            if value is not None and value == best[column.key] and name not in _BASELINES
            else ""
        )
        cells.append(f"<td{mark}>{number(value, column.digits)}{small}</td>")
    kind = ' class="baseline"' if name in _BASELINES else ""
    colour = system_colour(name, list(summary["rows"]))
    return f'<tr{kind}><td><span class="sys" style="--dot:{colour}">{escape(name)}</span></td>{"".join(cells)}</tr>'


def _span(span: Mapping[str, float], digits: int) -> str:
    between = " to " if span["low"] < 0 else "–"
    return f"{number(span['low'], digits)}{between}{number(span['high'], digits)}"


def _best(rows: Mapping[str, Mapping[str, Any]], column: Column) -> float | None:
    values = [
        row[column.key]
        for name, row in rows.items()
        if name not in _BASELINES and row.get(column.key) is not None
    ]
    return max(values) if values and column.higher_is_better else None


def _counts(rows: Mapping[str, Mapping[str, Any]]) -> str:
    images = max((row.get("n") or 0 for row in rows.values()), default=0)
    questions = max((row.get("n_questions") or 0 for row in rows.values()), default=0)
    parts = ([f"{images:,} images"] if images else []) + ([f"{questions:,} questions"] if questions else [])
    return f"{' and '.join(parts)} of the test split." if parts else ""


def _baseline_text(summary: Mapping[str, Any]) -> str:
    blind = summary.get("baselines", {}).get("blind", {})
    told = [
        f"{blind[task]} ({word})"
        for task, word in (("caption", "captions"), ("vqa", "answers"))
        if blind.get(task)
    ]
    parts = [f"Blind: {', '.join(told)}."] if told else []
    if "human" in summary.get("rows", {}):
        parts.append("Human: one reference scored against the others.")
    return " ".join(parts)


def _sample(sample: Mapping[str, Any], folder: Path, systems: list[str]) -> str:
    picture = folder / str(sample.get("image", ""))
    image = (
        f'<img class="{_pixel_class(picture)}" alt="test picture" src="{data_url(picture)}">'
        if picture.is_file()
        else ""
    )
    asked_of = [name for question in sample.get("questions", []) for name in question.get("systems", {})]
    names = sorted({*sample.get("systems", {}), *asked_of}, key=lambda name: _place(name, systems))
    said = "".join(
        _said(name, sample["systems"][name], system_colour(name, systems))
        for name in names
        if name in sample["systems"]
    )
    references = "".join(f"<li>{escape(text)}</li>" for text in sample.get("references", []))
    asked = "".join(_question(question, names) for question in sample.get("questions", []))
    fold = f"<details><summary>references</summary><ul>{references}</ul></details>" if references else ""
    return (
        f'<article class="card sample">{image}<div><ul class="said">{said}{asked}</ul>{fold}</div></article>'
    )


def _said(name: str, entry: Mapping[str, Any], colour: str) -> str:
    text = str(entry.get("caption", ""))
    shown = escape(text) if text else '<span class="empty">nothing</span>'
    chips = "".join(
        f'<span class="chip">{escape(key)} <b>{number(value, 2)}</b></span>'
        for key, value in entry.get("scores", {}).items()
        if value is not None
    )
    return (
        f'<li><span class="who sys" style="--dot:{colour}">{escape(name)}</span><p>{shown}</p>'
        f'<div class="chips">{chips}</div></li>'
    )


def _question(question: Mapping[str, Any], names: Sequence[str]) -> str:
    answers = "".join(
        f'<span class="chip">{escape(name)} <b>{escape(question["systems"][name]["answer"])}</b> '
        f"{number(question['systems'][name]['accuracy'], 0)} %</span>"
        for name in names
        if name in question.get("systems", {})
    )
    asked = escape(question.get("question", ""))
    expected = escape(question.get("answer", ""))
    return f'<li><span class="who">{asked}</span><p>annotators: {expected}</p><div class="chips">{answers}</div></li>'


def _pixel_class(path: Path) -> str:
    from toolkit.data.images import load_image

    return "small" if max(load_image(path).size) <= 96 else "photo"


def _interval(value: Mapping[str, float]) -> Interval:
    return Interval(mean=value["mean"], low=value["low"], high=value["high"])


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f} s"


def _last_step(run: StageRun) -> str:
    return f"{run.metrics[-1]['step']:,}" if run.metrics else "–"


def _place(name: str, systems: Sequence[str]) -> int:
    return systems.index(name) if name in systems else len(systems)
