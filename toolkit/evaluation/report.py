"""One self-contained HTML page from the run directories of a chain: no script, no request, everything escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.evaluation.report_curves import curves_section
from toolkit.evaluation.report_inputs import ReportInputs, find_runs, read_inputs
from toolkit.evaluation.report_reward import best_of_n_section, diagnostics_section
from toolkit.evaluation.report_sections import (
    differences_section,
    headline,
    reward_model_section,
    runs_section,
    samples_section,
    table_section,
)
from toolkit.evaluation.report_style import STYLE
from toolkit.evaluation.report_text import escape
from toolkit.runs.atomic import atomic_write_text

if TYPE_CHECKING:
    from toolkit.config.schema import ReportRecipe

__all__ = ["build_page", "report_stage", "write_report"]

# The page may show embedded pictures and its own style, and load nothing: a browser enforces what we promise.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def write_report(root: Path, *, out: Path | None = None, samples: int = 24) -> Path:
    """The report of a run directory, an evaluation folder or a pipeline's output folder.

    Returns:
        the page's path, ``<root>/report.html`` unless ``out`` says otherwise.

    Raises:
        DataError: there is no run at ``root``.
    """
    runs, evaluation = find_runs(root)
    page = out or root / "report.html"
    inputs = read_inputs(runs, evaluation, title=root.resolve().name, samples=samples, page=page)
    atomic_write_text(page, build_page(inputs))
    return page


def report_stage(recipe: ReportRecipe, output: Path) -> Path:
    """The ``report`` stage: a page from the runs and the evaluation that the recipe names.

    Raises:
        DataError: a run directory or the evaluation is missing; all of them at once.
    """
    runs, evaluation = [Path(run) for run in recipe.runs], Path(recipe.evaluation)
    missing = [f"{path}: no such run directory" for path in (*runs, evaluation) if not path.is_dir()]
    if missing:
        raise DataError("report", missing, remedy="run the stages first; vlm-rlhf run PIPELINE runs them all")
    page, title = output / "report.html", evaluation.resolve().parent.name
    inputs = read_inputs(runs, evaluation, title=title, samples=recipe.samples, page=page)
    atomic_write_text(page, build_page(inputs))
    return page


def build_page(inputs: ReportInputs) -> str:
    """The page as HTML text."""
    summary = inputs.summary
    sections = [
        ("scores", table_section(summary)),
        ("differences", differences_section(summary)),
        ("reward-model", reward_model_section(summary)),
        ("reward-diagnostics", diagnostics_section(inputs.runs)),
        ("best-of-n", best_of_n_section(inputs.best_of_n)),
        ("curves", curves_section(inputs.runs)),
        ("samples", samples_section(inputs.samples, inputs.samples_folder, list(summary.get("rows", {})))),
        ("runs", runs_section(inputs.runs)),
    ]
    links = "".join(f'<a href="#{name}">{name.replace("-", " ")}</a>' for name, html in sections if html)
    body = "".join(html for _, html in sections)
    title = escape(f"{inputs.title} · vlm-rlhf")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>"
        f"<header><h1>{escape(inputs.title)}</h1><p>{_subtitle(inputs)}</p><nav>{links}</nav>{headline(summary)}</header>"
        f"{body}<footer>{_footer(summary)}</footer></main></body></html>\n"
    )


def _subtitle(inputs: ReportInputs) -> str:
    stages: Sequence[str] = [run.stage for run in inputs.runs]
    chain = " → ".join(dict.fromkeys(stages))
    environment: Mapping[str, Any] = inputs.runs[-1].environment if inputs.runs else {}
    when = str(environment.get("started", ""))[:16].replace("T", " ")
    return escape(" · ".join(part for part in (chain, f"{when} UTC" if when else "") if part))


def _footer(summary: Mapping[str, Any]) -> str:
    protocol: Mapping[str, Any] = summary.get("protocol", {})
    said = [f"{escape(key.replace('_', ' '))}: {escape(value)}" for key, value in protocol.items()]
    return "How it was measured. " + "; ".join(said) + "." if said else "Made by vlm-rlhf report."
