"""What every stage script does around its own work: recipe, logs, run directory, errors, exit code."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from toolkit.cli.guard import guarded, libraries_on_stderr
from toolkit.errors import RecipeError
from toolkit.runs.directory import RunDirectory
from toolkit.runs.logging import setup_logging
from toolkit.runs.offline import quiet_environment
from toolkit.runs.processes import leave_process_group, process_rank
from toolkit.runs.trackers import require_trackers

__all__ = ["StageFunction", "run_stage", "stage_main"]

StageFunction = Callable[[Any, RunDirectory, bool], None]
_log = logging.getLogger("vlm_rlhf.stage")


def stage_main(stage: str, run: StageFunction, argv: Sequence[str] | None = None) -> int:
    """Body of ``recipes/<stage>.py``: parse ``RECIPE key=value … [--resume]``, run the stage, return its exit code.

    Args:
        stage: the stage this script runs; a recipe of another stage is refused.
        run: called with the recipe, its prepared run directory and whether an earlier run is continued.
        argv: arguments after the script's name; those of the process by default.
    """
    quiet_environment()
    setup_logging(rank=process_rank())
    arguments, rest = _parser(stage).parse_known_args(argv)

    def work() -> int:
        from toolkit.config.catalogue import find_recipe
        from toolkit.config.loading import load_recipe

        path = find_recipe(arguments.recipe)
        recipe = load_recipe(path, [*arguments.overrides, *rest])
        if recipe.stage != stage:
            problem = f"stage: expected '{stage}', found '{recipe.stage}'"
            raise RecipeError(str(path), problem, remedy=f"vlm-rlhf run {arguments.recipe}")
        with libraries_on_stderr():
            run_stage(recipe, run, resume=arguments.resume, recipe_path=path)
            leave_process_group()
        return 0

    code = guarded(work, debug=arguments.debug or os.environ.get("VLM_RLHF_DEBUG") == "1")
    _tell_parent(code)
    return code


def run_stage(
    recipe: Any, run: StageFunction, *, resume: bool = False, recipe_path: Path | None = None
) -> RunDirectory:
    """Check the recipe against this machine, prepare its directory, run the stage and mark it finished.

    A finished run that is resumed returns at once. Errors pass through; a start that failed before any result was
    written leaves no directory behind.
    """
    from toolkit.config.checks import check_recipe

    directory = RunDirectory(recipe.run.output_dir)
    check_recipe(recipe, recipe_path)
    require_trackers(recipe.run.report_to)
    try:
        with directory.stop.installed():
            directory.prepare(recipe, resume=resume, recipe_path=recipe_path)
            directory.stop.raise_if_requested("stopped before the first step")
            if directory.is_finished():
                _log.info("%s is finished already", directory.path)
                return directory
            _log.info("%s → %s", recipe.stage, directory.path)
            began_s = time.monotonic()
            run(recipe, directory, resume)
            directory.mark_finished(seconds=round(time.monotonic() - began_s, 1))
        return directory
    finally:
        directory.release()


def _tell_parent(code: int) -> None:
    """A launcher turns every failure of its workers into 1; the command line reads the real code from this file.

    The first process to fail writes it: the launcher ends the others with SIGTERM, which is not the reason.
    """
    path = os.environ.get("VLM_RLHF_EXIT_CODE_FILE")
    if path and code:
        with contextlib.suppress(FileExistsError), open(path, "x", encoding="ascii") as file:
            file.write(str(code))


def _parser(stage: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m recipes.{stage}", description=f"Run a {stage} recipe.", allow_abbrev=False
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe file, or the name of one that comes along")
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", default=[], help="values that replace the recipe's"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in the recipe's output directory"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks of expected errors too")
    return parser
