"""The rows of a reward recipe: pairs or ranked lists to train on, pairs to validate on. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from toolkit.config.schema import RewardRecipe
from toolkit.data.files import shown
from toolkit.data.preferences import pairs_of
from toolkit.data.sources import load_parts, load_preference_rows, load_ranked_rows
from toolkit.errors import DataError, RecipeError
from toolkit.records import PreferenceRow, RankedRow

__all__ = ["RewardData", "load_reward_data"]

Row = TypeVar("Row", PreferenceRow, RankedRow)
RewardData = tuple[Sequence[PreferenceRow] | Sequence[RankedRow], Sequence[PreferenceRow]]
"""Training rows and validation pairs."""


def load_reward_data(recipe: RewardRecipe) -> RewardData:
    """Read, check and weight the rows of ``recipe.data``.

    Training rows are ranked lists for ``loss.kind=plackett_luce`` and pairs, ties among them, for every other
    loss. Validation rows are the pairs that are no ties.

    Raises:
        DataError: every problem of the files, nothing to learn from, or a picture in both parts.
        RecipeError: ``source_weights`` names a source that no training row has.
    """
    weights = recipe.source_weights
    if recipe.loss.kind == "plackett_luce":
        lists, val_lists = load_parts(recipe.data, load_ranked_rows)
        informative = [row for row in lists if len(set(row.ranks)) > 1]
        _check_informative(informative, lists, recipe)
        val = [pair for row in val_lists for pair in pairs_of(row) if not pair.tie]
        return _weighted(informative, weights), val
    pairs, val_pairs = load_parts(recipe.data, partial(load_preference_rows, ties=True))
    _check_informative([pair for pair in pairs if not pair.tie], pairs, recipe)
    return _weighted(pairs, weights), [pair for pair in val_pairs if not pair.tie]


def _check_informative(informative: Sequence[Row], rows: Sequence[Row], recipe: RewardRecipe) -> None:
    if rows and not informative:
        raise DataError(
            recipe.data.root,
            f"all {len(rows)} training rows are ties; a reward model learns from rows with a better completion",
            remedy="add rows with a preference",
        )


def _weighted(rows: Sequence[Row], weights: dict[str, float]) -> list[Row]:
    sources = {row.source for row in rows}
    unknown = [name for name in weights if name not in sources]
    if unknown:
        raise RecipeError(
            "recipe",
            [f"source_weights.{name}: no training row has the source {shown(name)}" for name in unknown],
            remedy=f"sources of the rows: {', '.join(sorted(map(shown, sources)))}",
        )
    return [replace(row, weight=row.weight * weights.get(row.source, 1.0)) for row in rows]
