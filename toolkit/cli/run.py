"""``vlm-rlhf run``: start a stage as a child process, under accelerate when asked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from toolkit.errors import UsageError

__all__ = ["add_parser", "start"]


def add_parser(subparsers: Any) -> None:
    """Define ``run RECIPE [key=value …] [--launch …] [--processes N] [--resume] [--dry-run]``."""
    parser = subparsers.add_parser(
        "run",
        help="run a recipe",
        description="Run a recipe. Values are overridden as key.sub=value, list items by index: rewards.0.weight=2.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe file, or the name of one that comes along")
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", default=[], help="values that replace the recipe's"
    )
    parser.add_argument(
        "--launch",
        default="none",
        metavar="HOW",
        help="none, ddp, zero1, zero2, zero2-offload, zero3, zero3-offload, fsdp, or an accelerate FILE.yaml",
    )
    parser.add_argument(
        "--processes", type=int, metavar="N", help="how many processes (default: one a GPU, else 2)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in the recipe's output directory"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check, print the command on stdout, start nothing"
    )
    parser.set_defaults(handler=_handle)


def _handle(arguments: argparse.Namespace) -> int:
    return start(
        arguments.recipe,
        arguments.overrides,
        launch=arguments.launch,
        processes=arguments.processes,
        resume=arguments.resume,
        dry_run=arguments.dry_run,
    )


def start(
    recipe: str,
    overrides: list[str],
    *,
    launch: str = "none",
    processes: int | None = None,
    resume: bool = False,
    dry_run: bool = False,
) -> int:
    """Check a recipe, print the command that runs its stage, run it and return its exit code.

    Raises:
        RecipeError: the recipe is wrong, or does not fit the launcher.
        CheckpointError: the output directory holds another run (found before any process starts).
        UsageError: ``processes`` does not fit ``launch``.
        EnvironmentLacking: the launcher needs a device or library that is not there.
    """
    from toolkit.cli.launching import quoted, run_child, stage_command
    from toolkit.config.catalogue import find_recipe
    from toolkit.config.checks import check_recipe
    from toolkit.config.launchers import launch_problem
    from toolkit.config.loading import load_recipe
    from toolkit.runs.directory import RunDirectory

    path = find_recipe(recipe)
    loaded = load_recipe(path, overrides)
    problem = launch_problem(loaded.stage, launch, processes)
    if problem is not None:
        raise UsageError(problem[0], remedy=problem[1])
    check_recipe(loaded, Path(path), launch=launch)
    RunDirectory(loaded.run.output_dir).check(loaded, resume=resume)
    command = stage_command(
        loaded.stage,
        path,
        overrides,
        launch=launch,
        processes=processes,
        resume=resume,
        gradient_accumulation=getattr(loaded, "trainer", {}).get("gradient_accumulation_steps", 1),
    )
    if dry_run:
        sys.stdout.write(quoted(command) + "\n")
        return 0
    sys.stderr.write(f"$ {quoted(command)}\n")
    sys.stderr.flush()
    return run_child(command)
