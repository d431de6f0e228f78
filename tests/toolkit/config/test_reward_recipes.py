"""Losses of reward recipes: settings that the chosen loss would not read are refused."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.config.checks import check_recipe
from toolkit.config.loading import parse_recipe
from toolkit.errors import RecipeError


@pytest.mark.parametrize(
    ("loss", "problem"),
    [
        (
            {"kind": "graded", "label_smoothing": 0.1},
            "loss.label_smoothing: belongs to loss.kind=bradley_terry",
        ),
        ({"tie_threshold": 0.6}, "loss.tie_threshold: belongs to loss.kind=rao_kupper"),
        ({"kind": "rao_kupper", "tie_threshold": 0.5}, None),
        ({"label_smoothing": 0.1}, None),
        (
            {"kind": "graded", "label_smoothing": 0.0, "tie_threshold": 0.5},
            None,
        ),  # as a resolved recipe says it
    ],
)
def test_settings_that_nothing_reads(loss: dict[str, Any], problem: str | None) -> None:
    recipe = parse_recipe(
        {
            "stage": "reward",
            "model": {"id": "sft/final"},
            "data": {"root": "data", "train": [{"kind": "rows", "file": "pairs.jsonl"}]},
            "loss": loss,
            "run": {"output_dir": "out"},
        }
    )
    with pytest.raises(RecipeError) as caught:  # the data file is not there
        check_recipe(recipe)
    found = [line for line in caught.value.problems if line.startswith("loss.")]
    assert len(found) == (problem is not None)
    assert problem is None or problem in found[0]
