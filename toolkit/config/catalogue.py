"""The recipes that come along: found by name, listed, copied together with what they refer to."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from toolkit.config.document import read_tree
from toolkit.config.messages import suggestion
from toolkit.errors import RecipeError, UsageError

__all__ = ["ListedRecipe", "configs_folder", "copy_recipe", "find_recipe", "listed_recipes"]


@dataclass(frozen=True, slots=True)
class ListedRecipe:
    """A recipe that comes along: its name (``scenes/ppo``), file, stage and first line of comment."""

    name: str
    path: Path
    stage: str
    summary: str


def configs_folder() -> Path:
    """The folder of the recipes that come along, in a checkout and in an installed package alike."""
    return Path(__file__).resolve().parents[2] / "recipes" / "configs"


def listed_recipes() -> list[ListedRecipe]:
    """Every recipe that comes along, by name."""
    root = configs_folder()
    found: list[ListedRecipe] = []
    for path in sorted(root.rglob("*.yaml")):
        tree = read_tree(path, [])
        stage = tree.child("stage")
        if stage is None and (base := tree.child("extends")) is not None:
            stage = read_tree(path.parent / str(base.value), []).child("stage")
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        summary = first.lstrip("# ").strip() if first.startswith("#") else ""
        name = path.relative_to(root).with_suffix("").as_posix()
        found.append(ListedRecipe(name, path, str(stage.value) if stage is not None else "", summary))
    return found


def find_recipe(text: str | Path) -> Path:
    """The file of a recipe given by path or by the name of one that comes along (``scenes/ppo``).

    Raises:
        RecipeError: there is neither such a file nor such a name.
    """
    path = Path(text)
    if path.is_file():
        return path
    if path.is_dir():
        raise RecipeError(str(path), "expected a recipe file, found a folder")
    root = configs_folder()
    for candidate in (root / f"{text}.yaml", root / str(text)):
        if not path.is_absolute() and ".." not in path.parts and candidate.is_file():
            return candidate
    names = [recipe.name for recipe in listed_recipes()]
    problem = f"expected a recipe file or name, found neither{suggestion(str(path.with_suffix('')), names)}"
    raise RecipeError(str(text), problem, remedy="vlm-rlhf recipes ls lists those that come along")


def copy_recipe(name: str, destination: Path) -> list[Path]:
    """Copy a recipe with the recipes it extends or chains; returns the written files, the recipe first.

    Args:
        name: a recipe as for ``find_recipe``.
        destination: the new file when it ends in ``.yaml`` or ``.yml``, otherwise the folder to put it into.
            Recipes it refers to keep their place relative to it.

    Raises:
        UsageError: a file that would be written exists, or a recipe refers to one outside its folder.
    """
    source = find_recipe(name)
    target = destination if destination.suffix in (".yaml", ".yml") else destination / source.name
    copies = {source: target}
    for needed in _referred(source):
        relative = Path(os.path.relpath(needed, source.parent))
        if relative.parts[0] == "..":
            raise UsageError(
                f"{source} refers to {needed}, outside its folder", remedy="copy the files by hand"
            )
        copies[needed] = target.parent / relative
    for path in copies.values():
        if path.exists():
            raise UsageError(f"{path} exists already", remedy="choose another destination")
    for original, path in copies.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(original, path)
    return list(copies.values())


def _referred(path: Path) -> list[Path]:
    """Recipes that ``path`` extends or chains, and theirs."""
    tree = read_tree(path, [])
    names = [tree.child("extends")]
    stages = tree.child("stages")
    if stages is not None and isinstance(stages.value, list):
        names += [stage.child("recipe") for stage in stages.value]
    found: list[Path] = []
    for name in names:
        below = path.parent / str(name.value) if name is not None else path
        if below.is_file() and below != path and below not in found:
            found += [below, *(other for other in _referred(below) if other not in found)]
    return list(dict.fromkeys(found))
