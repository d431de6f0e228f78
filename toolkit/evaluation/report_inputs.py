"""What a report is made of: run directories and an evaluation folder, read without judging them."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from toolkit.errors import DataError
from toolkit.runs.metrics import read_metrics

__all__ = ["ReportInputs", "StageRun", "data_url", "find_runs", "read_inputs"]

_STAGE_ORDER = ("pretrain", "judging", "sft", "preferences", "reward", "rl", "preference", "eval")
_MAX_IMAGE_SIDE = 320


@dataclass(frozen=True, slots=True)
class StageRun:
    """One run directory: its recipe as text, ``environment.json``, its metric lines and how long it took.

    ``evaluation`` is what a reward run measured on held-out pairs, ``reward_evaluation.json``; ``samples_page`` the
    address of an RL run's page of samples as seen from the report, empty where there is none.
    """

    name: str
    stage: str
    recipe: str
    environment: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    seconds: float | None = None
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    samples_page: str = ""


@dataclass(frozen=True, slots=True)
class ReportInputs:
    """Everything the page shows. ``summary`` and ``samples`` are empty without an evaluation folder."""

    title: str
    runs: Sequence[StageRun]
    summary: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]]
    samples_folder: Path | None
    best_of_n: Mapping[str, Any] = field(default_factory=dict)


def find_runs(root: Path) -> tuple[list[Path], Path | None]:
    """Run directories at ``root`` or one level below it, in the order of the chain, and the evaluation folder.

    Raises:
        DataError: there is neither a run nor an evaluation.
    """
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())] if root.is_dir() else []
    runs = [path for path in folders if (path / "recipe.resolved.yaml").exists()]
    # A pipeline's own folder holds a copy of the summary; the evaluation is where the systems are.
    evaluations = [
        path for path in folders if (path / "summary.json").exists() and (path / "systems").is_dir()
    ]
    if not runs and not evaluations:
        raise DataError(
            str(root),
            "no run here: expected recipe.resolved.yaml or summary.json in it or in a folder of it",
            remedy="give the output_dir of a run or of a pipeline, e.g. vlm-rlhf report out/quickstart",
        )
    return runs, evaluations[0] if evaluations else None


def read_inputs(
    runs: Sequence[Path], evaluation: Path | None, *, title: str, samples: int, page: Path
) -> ReportInputs:
    """Read run directories (those with metrics or a recipe) and the evaluation's summary and samples.

    ``page`` is where the report will be: it links to what lies beside it.
    """
    stages = [_read_run(path, page.parent) for path in runs]
    stages = [stage for stage in stages if stage.stage not in ("report", "pipeline")]
    stages.sort(
        key=lambda run: _STAGE_ORDER.index(run.stage) if run.stage in _STAGE_ORDER else len(_STAGE_ORDER)
    )
    if evaluation is None:
        return ReportInputs(title, stages, {}, [], None)
    folder = evaluation / "samples"
    rows = _read_json(folder / "samples.json", default=[])
    return ReportInputs(
        title,
        stages,
        _read_json(evaluation / "summary.json", default={}),
        rows[:samples],
        folder,
        _read_json(evaluation / "best_of_n.json", default={}),
    )


def data_url(path: Path) -> str:
    """A picture as a ``data:`` address, made smaller where it is wider or higher than 320 pixels."""
    from toolkit.data.images import load_image

    image = load_image(path)
    image.thumbnail((_MAX_IMAGE_SIDE, _MAX_IMAGE_SIDE))
    buffer = io.BytesIO()
    kind = "png" if max(image.size) <= 96 else "jpeg"
    image.save(buffer, format=kind, **({} if kind == "png" else {"quality": 85}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _read_run(path: Path, seen_from: Path) -> StageRun:
    recipe_path, metrics_path = path / "recipe.resolved.yaml", path / "metrics.jsonl"
    recipe = recipe_path.read_text(encoding="utf-8") if recipe_path.exists() else ""
    return StageRun(
        name=path.name,
        stage=_stage_of(recipe),
        recipe=recipe,
        environment=_read_json(path / "environment.json", default={}),
        metrics=read_metrics(metrics_path) if metrics_path.exists() else [],
        seconds=_read_json(path / "finished.json", default={}).get("seconds"),
        evaluation=_read_json(path / "reward_evaluation.json", default={}),
        samples_page=_address(path / "samples" / "rollouts.html", seen_from),
    )


def _address(page: Path, seen_from: Path) -> str:
    if not page.is_file():
        return ""
    return quote(Path(os.path.relpath(page.resolve(), seen_from.resolve())).as_posix())


def _stage_of(recipe: str) -> str:
    for line in recipe.splitlines():
        if line.startswith("stage:"):
            return line.partition(":")[2].strip().strip("'\"")
    return "unknown"


def _read_json(path: Path, *, default: Any) -> Any:
    if not path.exists():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(str(path), f"not a JSON file: {error}", remedy="run the eval stage again") from error
