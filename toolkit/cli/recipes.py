"""``vlm-rlhf recipes``: the recipes that come along, and the JSON schema of all recipes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define ``recipes ls | cp NAME DEST | schema``."""
    parser = subparsers.add_parser("recipes", help="recipes that come along", allow_abbrev=False)
    actions = parser.add_subparsers(required=True, metavar="ls|cp|schema")
    listing = actions.add_parser("ls", help="list them")
    listing.set_defaults(handler=_list)
    copying = actions.add_parser("cp", help="copy one, with the recipes it extends or chains")
    copying.add_argument("name", metavar="NAME", help="as listed, e.g. scenes/ppo")
    copying.add_argument("destination", metavar="DEST", type=Path, help="a .yaml file, or a folder")
    copying.set_defaults(handler=_copy)
    schema = actions.add_parser("schema", help="print the JSON schema, for editors")
    schema.set_defaults(handler=_schema)


def _list(arguments: argparse.Namespace) -> int:
    from toolkit.config.catalogue import listed_recipes

    recipes = listed_recipes()
    wide = max((len(recipe.name) for recipe in recipes), default=0)
    for recipe in recipes:
        sys.stdout.write(f"{recipe.name:<{wide}}  {recipe.stage:<11}  {recipe.summary}".rstrip() + "\n")
    return 0


def _copy(arguments: argparse.Namespace) -> int:
    from toolkit.config.catalogue import copy_recipe

    for path in copy_recipe(arguments.name, arguments.destination):
        sys.stdout.write(f"{path}\n")
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    from toolkit.config.loading import recipe_json_schema

    sys.stdout.write(json.dumps(recipe_json_schema(), indent=2, ensure_ascii=False) + "\n")
    return 0
