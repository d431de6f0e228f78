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


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"rank_by": [{"term": "cidr"}]}, "rank_by.0.term: expected one of"),
        ({"rank_by": [{"term": "learned"}]}, "rank_by.0.model: expected the directory of a reward model"),
        (
            {"rank_by": [{"term": "learned", "model": "gone"}]},
            "rank_by.0.model: expected a reward model, found nothing",
        ),
        (
            {"rank_by": [{"term": "cider"}], "raters": "metric"},
            "raters: beside rank_by: expected one of them",
        ),
    ],
)
def test_what_ranks_samples(values: dict[str, Any], problem: str) -> None:
    recipe = parse_recipe(
        {
            "stage": "preferences",
            "model": {"id": "sft/final"},
            "data": {"root": "data", "train": [{"kind": "rows", "file": "prompts.jsonl"}]},
            "run": {"output_dir": "out"},
            **values,
        }
    )
    with pytest.raises(RecipeError) as caught:  # the data file is not there either
        check_recipe(recipe)
    assert any(line.startswith(problem) for line in caught.value.problems)


def test_members_under_a_launcher_and_choosing_without_a_model_are_refused() -> None:
    data = {"root": "data", "train": [{"kind": "rows", "file": "pairs.jsonl"}]}
    common = {"model": {"id": "sft/final"}, "data": data, "run": {"output_dir": "out"}}
    recipe = parse_recipe({"stage": "reward", "ensemble": {"members": 2}, **common})
    with pytest.raises(RecipeError, match="ensemble: is trained without zero2"):
        check_recipe(recipe, launch="zero2")
    evaluation = {
        "stage": "eval",
        "systems": [{"name": "sft", "model": {"id": "sft/final"}}],
        "data": {"root": "data", "test": [{"kind": "caption", "captions": "c.json", "images": "images"}]},
        "best_of_n": {"system": "sft"},
        "run": {"output_dir": "out"},
    }
    tracked = {**evaluation, "run": {"output_dir": "out", "report_to": ["tensorboard"]}}
    with pytest.raises(RecipeError, match=r"run\.report_to: stage eval trains nothing to be tracked"):
        check_recipe(parse_recipe(tracked))
    with pytest.raises(RecipeError, match="best_of_n: the reward model chooses: expected reward_model"):
        check_recipe(parse_recipe(evaluation))
