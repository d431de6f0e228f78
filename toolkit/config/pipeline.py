"""The recipes of a chain, with the chain's values laid on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.config.catalogue import find_recipe
from toolkit.config.launchers import launch_problem
from toolkit.config.loading import load_recipe
from toolkit.config.schema import PipelineRecipe, PipelineStage, Recipe
from toolkit.errors import RecipeError, ToolkitError

__all__ = ["Link", "ancestors", "fill", "load_link", "load_links"]


@dataclass(frozen=True, slots=True)
class Link:
    """One stage of a chain: its entry there, the file of its recipe, and the recipe with all values set.

    Attributes:
        after: names of the stages that have to be done before this one.
        values: what the chain lays on the recipe, by dotted key.
    """

    stage: PipelineStage
    after: tuple[str, ...]
    path: Path
    values: Mapping[str, Any]
    recipe: Recipe

    @property
    def name(self) -> str:
        """The stage's name in the chain, and that of its folder."""
        return self.stage.name

    @property
    def overrides(self) -> list[str]:
        """``values`` as ``key=value`` words of a command line."""
        return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in self.values.items()]


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
        for name in stage.after or ():
            if name not in names[:index]:
                earlier = ", ".join(names[:index]) or "none, it is the first"
                problems.append(f"stages.{index}.after: expected earlier stages ({earlier}), found '{name}'")
        try:
            link = load_link(recipe, stage, path)
        except RecipeError as error:
            problems += [f"stages.{index} ({stage.name})  {problem}" for problem in error.problems]
        except ToolkitError as error:
            problems.append(f"stages.{index} ({stage.name})  {error.message}")
        else:
            if link.recipe.stage == "pipeline":
                problems.append(f"stages.{index}.recipe: a chain cannot hold another chain")
            elif (problem := launch_problem(link.recipe.stage, stage.launch, stage.processes)) is not None:
                problems.append(f"stages.{index} ({stage.name})  {problem[0]}: {problem[1]}")
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
    index = recipe.stages.index(stage)
    before = (
        tuple(stage.after) if stage.after is not None else tuple(s.name for s in recipe.stages[:index][-1:])
    )
    return Link(stage, before, file, values, load_recipe(file, values))


def ancestors(links: Sequence[Link], name: str) -> set[str]:
    """Names of all stages that are done before the stage ``name`` starts."""
    after = {link.name: link.after for link in links}
    found: set[str] = set()
    open_names = [name]
    while open_names:
        new = [earlier for earlier in after.get(open_names.pop(), ()) if earlier not in found]
        found.update(new)
        open_names += new
    return found


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
