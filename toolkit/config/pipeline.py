"""The recipes of a chain, with the chain's values laid on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.config.catalogue import find_recipe
from toolkit.config.loading import load_recipe
from toolkit.config.schema import PipelineRecipe, PipelineStage, Recipe
from toolkit.errors import RecipeError, ToolkitError

__all__ = ["Link", "fill", "load_link", "load_links"]


@dataclass(frozen=True, slots=True)
class Link:
    """One stage of a chain: its name there, the file of its recipe, and the recipe with all values set."""

    name: str
    path: Path
    recipe: Recipe


def load_links(recipe: PipelineRecipe, path: Path | None = None) -> list[Link]:
    """Every link of a chain, in order.

    Args:
        recipe: the chain.
        path: its file; stage recipes are looked for beside it first, then among those that come along.

    Raises:
        RecipeError: what is wrong with the chain and with all of its recipes, at once.
    """
    problems: list[str] = []
    links: list[Link] = []
    names = [stage.name for stage in recipe.stages]
    for index, stage in enumerate(recipe.stages):
        if names.index(stage.name) != index:
            problems.append(f"stages.{index}.name: '{stage.name}' is taken by an earlier stage")
        try:
            link = load_link(recipe, stage, path)
        except RecipeError as error:
            problems += [f"stages.{index} ({stage.name})  {problem}" for problem in error.problems]
        except ToolkitError as error:
            problems.append(f"stages.{index} ({stage.name})  {error.message}")
        else:
            if link.recipe.stage == "pipeline":
                problems.append(f"stages.{index}.recipe: a chain cannot hold another chain")
            links.append(link)
    if problems:
        raise RecipeError(str(path or "pipeline"), problems)
    return links


def load_link(recipe: PipelineRecipe, stage: PipelineStage, path: Path | None = None) -> Link:
    """One link: its recipe with ``run.output_dir`` and ``run.seed`` of the chain, then the stage's overrides.

    Raises:
        RecipeError: the stage's recipe is missing or wrong.
    """
    out = recipe.run.output_dir
    values: dict[str, Any] = {"run.output_dir": f"{out}/{stage.name}", "run.seed": recipe.run.seed}
    values |= _dotted(fill(stage.overrides, out, recipe.data))
    beside = path.parent / stage.recipe if path is not None else None
    file = beside if beside is not None and beside.is_file() else find_recipe(stage.recipe)
    return Link(stage.name, file, load_recipe(file, values))


def _dotted(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys: ``stages.0.overrides.trainer.max_steps=9`` leaves the rest of ``trainer``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _dotted(value, f"{before}{key}.")
        else:
            flat[before + key] = value
    return flat


def fill(value: Any, out: str, data: Mapping[str, str] | None = None) -> Any:
    """``value`` with ``{out}`` and the chain's ``{data.<name>}`` replaced, in lists and mappings too."""
    if isinstance(value, str):
        for name, text in (data or {}).items():
            value = value.replace(f"{{data.{name}}}", text)
        return value.replace("{out}", out)
    if isinstance(value, Mapping):
        return {key: fill(item, out, data) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [fill(item, out, data) for item in value]
    return value
