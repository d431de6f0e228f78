"""What can be wrong with a recipe beyond its schema, found without loading a model."""

from __future__ import annotations

from pathlib import Path

from toolkit.config.combination_checks import check_combinations
from toolkit.config.findings import Findings
from toolkit.config.input_checks import check_inputs
from toolkit.config.pipeline import ancestors, load_links
from toolkit.config.schema import PipelineRecipe, Recipe
from toolkit.config.trainer_keys import TRAINER_CLASSES, trainer_problems
from toolkit.errors import RecipeError

__all__ = ["check_recipe"]


def check_recipe(recipe: Recipe, path: Path | None = None, *, launch: str = "none") -> None:
    """Check trainer options, inputs and combinations; of a chain, those of every stage.

    Args:
        recipe: a recipe from ``load_recipe``.
        path: its file, for lines in messages and to find the recipe that makes a missing input.
        launch: the launcher it will run under (a name of ``vlm-rlhf run --launch``).

    Raises:
        RecipeError: every problem found, each as ``file:line  dotted.key: text``.
        EnvironmentLacking: a library whose options the recipe sets is not installed.
    """
    problems = _problems(recipe, path, launch, ())
    if problems:
        raise RecipeError(str(path or recipe.stage), problems)


def _problems(recipe: Recipe, path: Path | None, launch: str, produced: tuple[Path, ...]) -> list[str]:
    if isinstance(recipe, PipelineRecipe):
        return _chain_problems(recipe, path)
    findings = Findings(recipe, path, produced)
    options = getattr(recipe, "trainer", None)
    if options and recipe.stage in TRAINER_CLASSES:
        for key, problem in trainer_problems(recipe.stage, options):
            findings.add(f"trainer.{key}", problem)
    check_inputs(recipe, findings)
    check_combinations(recipe, findings, launch)
    return findings.problems


def _chain_problems(recipe: PipelineRecipe, path: Path | None) -> list[str]:
    """Problems of all links; what the stages before a link write counts as present for it."""
    problems: list[str] = []
    out = Path(recipe.run.output_dir)
    prepared = {"scenes": (out / "data", out / "base"), "base": (out / "base",), "none": ()}
    links = load_links(recipe, path)
    folders = {link.name: Path(link.recipe.run.output_dir) for link in links}
    for link in links:
        before = ancestors(links, link.name)
        produced = (*prepared[recipe.prepare], *(folders[name] for name in folders if name in before))
        found = _problems(link.recipe, link.path, link.stage.launch, produced)
        problems += [f"stage {link.name}: {problem}" for problem in found]
    return problems
