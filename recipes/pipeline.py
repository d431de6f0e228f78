"""A chain of stages by directory: each reads the ``final/`` of an earlier one; finished ones are skipped.

vlm-rlhf run scenes/quickstart run.output_dir=out/quickstart [--resume]
"""

from __future__ import annotations

import importlib
import json
import logging
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.cli.launching import quoted, run_child, stage_command
from toolkit.cli.stage import run_stage, stage_main
from toolkit.config.pipeline import Link, load_links
from toolkit.config.schema import PipelineRecipe
from toolkit.errors import Interrupted, RunFailed
from toolkit.runs.directory import RunDirectory
from toolkit.runs.jobs import Job, run_jobs

_log = logging.getLogger("vlm_rlhf.pipeline")


def run(recipe: PipelineRecipe, directory: RunDirectory, resume: bool) -> None:
    """Prepare data and base model, run the stages, gather ``summary.json`` from the evaluation.

    One at a time the stages run in this process, so that the libraries are imported once; ``jobs`` at a time in
    processes of their own.
    """
    out = directory.path
    if recipe.prepare == "scenes":
        prepare_scenes(recipe, out)
    if recipe.prepare != "none":
        prepare_base(out)
    links = load_links(recipe, directory.recipe_path)
    if recipe.jobs > 1:
        jobs = [Job(link.name, link.after, run_link, (link, recipe.run.seed)) for link in links]
        run_jobs(jobs, at_once=recipe.jobs, stop=directory.stop)
    else:
        for number, link in enumerate(links, start=1):
            _log.info("stage %d of %d: %s", number, len(links), link.name)
            run_link(link, recipe.run.seed)
            directory.stop.raise_if_requested(f"stopped after stage {link.name}; --resume goes on from there")
    gather_summary(recipe, out)


def prepare_scenes(recipe: PipelineRecipe, out: Path) -> None:
    """Write the sample data to ``data/``, unless it is there."""
    from toolkit.data.scenes.writing import write_sample
    from toolkit.runs.atomic import atomic_directory

    if not (out / "data").exists():
        began_s = time.monotonic()
        with atomic_directory(out / "data") as folder:
            write_sample(
                folder,
                seed=recipe.run.seed,
                rows={str(split): number for split, number in recipe.rows.items()},
            )
        _log.info("sample data written to %s in %.0f s", out / "data", time.monotonic() - began_s)


def prepare_base(out: Path) -> None:
    """Copy the bundled tiny VLM to ``base/final/``, unless it is there."""
    import shutil

    from toolkit.bundled import bundled_path
    from toolkit.runs.atomic import atomic_directory

    if not (out / "base" / "final").exists():
        (out / "base").mkdir(exist_ok=True)
        with atomic_directory(out / "base" / "final") as folder:
            shutil.copytree(bundled_path("tiny-vlm"), folder, dirs_exist_ok=True)


def run_link(link: Link, seed: int) -> None:
    """Run a stage with the chain's values; a finished one returns at once.

    Raises:
        RunFailed: a stage under a launcher failed; its own message was shown.
        Interrupted: a stage under a launcher was stopped by a signal.
    """
    if link.stage.launch == "none":
        seed_everything(seed)
        run_stage(link.recipe, stage_function(link.recipe.stage), resume=True, recipe_path=link.path)
    elif not RunDirectory(link.recipe.run.output_dir).is_finished():
        run_launched(link)


def run_launched(link: Link) -> None:
    """Run a stage under its launcher; raises as ``run_link`` does."""
    command = stage_command(
        link.recipe.stage,
        link.path,
        link.overrides,
        launch=link.stage.launch,
        processes=link.stage.processes,
        resume=True,
        gradient_accumulation=getattr(link.recipe, "trainer", {}).get("gradient_accumulation_steps", 1),
    )
    _log.info("$ %s", quoted(command))
    code = run_child(command)
    if code in (130, 143):
        raise Interrupted(f"stage {link.name} was stopped; --resume goes on from there", exit_code=code)
    if code:
        error = RunFailed(f"stage {link.name} ended with exit code {code}; its message is above")
        error.exit_code = code
        raise error


def stage_function(stage: str) -> Any:
    """The ``run`` function of ``recipes/<stage>.py``."""
    return importlib.import_module(f"recipes.{stage}").run


def seed_everything(seed: int) -> None:
    """Start every stage from the same random state, whether or not an earlier one ran in this process."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def gather_summary(recipe: PipelineRecipe, out: Path) -> None:
    """Copy the evaluation's summary to ``summary.json`` with the seconds of every stage."""
    from toolkit.runs.atomic import atomic_write_text

    for stage in recipe.stages:
        found = out / stage.name / "summary.json"
        if found.exists():
            summary = json.loads(found.read_text(encoding="utf-8"))
            summary["seconds"] = {link.name: stage_seconds(out / link.name) for link in recipe.stages}
            atomic_write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")


def stage_seconds(folder: Path) -> float | None:
    """Wall seconds of a finished stage (of its last part, where it was interrupted and resumed)."""
    found = folder / "finished.json"
    return json.loads(found.read_text(encoding="utf-8"))["seconds"] if found.exists() else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chain from the command line and return its exit code."""
    return stage_main("pipeline", run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
