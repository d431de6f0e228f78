"""Everything the ``eval`` stage reads besides models: it is read first, so that wrong data stop it at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.config.schema import RowsSource
from toolkit.errors import DataError, RecipeError
from toolkit.evaluation.split import Id, TestSplit
from toolkit.records import PreferenceRow

if TYPE_CHECKING:
    from toolkit.config.schema import EvalRecipe
    from toolkit.data.scenes.scene import Scene

__all__ = ["EvaluationInputs", "check_names", "read_inputs"]

_RESERVED = ("blind", "human")


@dataclass(frozen=True, slots=True)
class EvaluationInputs:
    """The rows to decode and what they are scored with.

    Attributes:
        split: the test split.
        pairs: held-out preference pairs for the reward model's card.
        train_references: captions of the training images, for the best constant caption; never of a test image.
        scenes: scenes by image id, for the column ``gold``.
    """

    split: TestSplit
    pairs: Sequence[PreferenceRow] = ()
    train_references: Mapping[Id, Sequence[str]] | None = None
    scenes: Mapping[Any, Scene] | None = field(default=None, repr=False)

    def with_pairs(self, pairs: Sequence[PreferenceRow]) -> EvaluationInputs:
        """The same with more preference pairs."""
        return replace(self, pairs=[*self.pairs, *pairs])


def read_inputs(recipe: EvalRecipe, *, judged: bool) -> EvaluationInputs:
    """Check the recipe's names and read its data; loads neither torch nor a model.

    Args:
        recipe: the recipe.
        judged: whether there is a reward model to judge pairs with.

    Raises:
        RecipeError: names that clash or do not exist, pairs without a reward model; all at once.
        DataError: the data of the test split, the pairs, the training references or the scenes are wrong.
    """
    check_names(recipe, judged=judged)
    from toolkit.data.sources import load_prompt_rows

    root = Path(recipe.data.root)
    split = TestSplit.from_rows(load_prompt_rows(recipe.data.test, root), where=f"test data of {root}")
    return EvaluationInputs(
        split=split,
        pairs=_pairs(recipe),
        train_references=_train_references(recipe, split),
        scenes=_scenes(recipe, split),
    )


def check_names(recipe: EvalRecipe, *, judged: bool) -> None:
    """Names of systems and of what refers to them; ``judged`` as for ``read_inputs``.

    Raises:
        RecipeError: every name that clashes or does not exist, and pairs without a reward model.
    """
    names = [system.name for system in recipe.systems]
    known = {*names, *_RESERVED}
    problems = [
        f"systems: the name '{name}' is used twice"
        for name in sorted({n for n in names if names.count(n) > 1})
    ]
    problems += [f"systems: '{name}' is the name of a baseline row" for name in names if name in _RESERVED]
    problems += [
        f"systems: '{name}' cannot name a folder; expected letters, digits, '-', '_' or '.'"
        for name in names
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum()
    ]
    if recipe.blind_from is not None and recipe.blind_from not in names:
        problems.append(
            f"blind_from: no system is named '{recipe.blind_from}'; expected one of {', '.join(names)}"
        )
    problems += [
        f"differences: no system is named '{name}'; expected one of {', '.join(sorted(known))}"
        for pair in recipe.differences
        for name in pair
        if name not in known
    ]
    if recipe.preference_pairs and not judged:
        problems.append("preference_pairs: expected a reward_model to judge them, found none")
    if problems:
        raise RecipeError("eval recipe", problems, remedy="correct the names in the recipe")


def _pairs(recipe: EvalRecipe) -> list[PreferenceRow]:
    from toolkit.data.sources import load_preference_rows

    pairs: list[PreferenceRow] = []
    for name in recipe.preference_pairs:
        path = _under_root(recipe, name)
        pairs += load_preference_rows([RowsSource(kind="rows", file=path.name)], path.parent)
    return pairs


def _train_references(recipe: EvalRecipe, split: TestSplit) -> dict[Id, Sequence[str]] | None:
    """Captions of training images; of a file that holds all parts, those that fall into ``train``."""
    if recipe.train_references is None:
        return None
    from toolkit.data.coco import read_captions
    from toolkit.data.splits import part_of

    problems: list[str] = []
    items = read_captions(_under_root(recipe, recipe.train_references), problems)
    if problems:
        raise DataError(recipe.train_references, problems, remedy="correct the training references")
    tested = {str(image_id) for image_id in split.references}
    whole = any(str(item.image_id) in tested for item in items)
    references: dict[Id, Sequence[str]] = {
        item.image_id: item.captions
        for item in items
        if str(item.image_id) not in tested and (not whole or part_of(item.image_id) == "train")
    }
    if not references:
        problem = "every image is a test image, expected captions of training images"
        raise DataError(
            recipe.train_references, problem, remedy="give each part its own images, or leave it out"
        )
    return references


def _scenes(recipe: EvalRecipe, split: TestSplit) -> Mapping[Any, Scene] | None:
    if recipe.scenes is None:
        return None
    from toolkit.data.scenes.scene import read_scenes

    path = _under_root(recipe, recipe.scenes)
    if not path.is_file():
        raise DataError(str(path), "no such file", remedy="leave scenes out for data that are no scenes")
    scenes: Mapping[Any, Scene] = read_scenes(path)
    missing = [f"image {row.image_id!r} has no scene" for row in split.captions if row.image_id not in scenes]
    if missing:
        raise DataError(str(path), missing, remedy="give the scenes.jsonl of the test split")
    return scenes


def _under_root(recipe: EvalRecipe, name: str) -> Path:
    """A file below ``data.root`` where there is one of that name, else relative to the current directory."""
    below = Path(recipe.data.root) / name
    return below if below.exists() else Path(name)
