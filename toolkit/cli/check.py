"""``vlm-rlhf check``: every problem of a recipe at once, without loading a model."""

from __future__ import annotations

import argparse
import sys
from typing import Any

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define ``check RECIPE [key=value …] [--launch …]``."""
    parser = subparsers.add_parser(
        "check",
        help="every problem of a recipe at once",
        description="Check a recipe: keys, types, trainer options, files, combinations. Exit code 0 or 2.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe file, or the name of one that comes along")
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", default=[], help="values that replace the recipe's"
    )
    parser.add_argument(
        "--launch", default="none", metavar="HOW", help="check for this launcher too (see run)"
    )
    parser.set_defaults(handler=_handle)


def _handle(arguments: argparse.Namespace) -> int:
    from toolkit.config.catalogue import find_recipe
    from toolkit.config.checks import check_recipe
    from toolkit.config.loading import load_recipe

    path = find_recipe(arguments.recipe)
    recipe = load_recipe(path, arguments.overrides)
    check_recipe(recipe, path, launch=arguments.launch)
    sys.stdout.write(f"{path}: a correct {recipe.stage} recipe\n")
    return 0
