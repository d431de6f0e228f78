"""Rewards from a user's file or module, in TRL's signature."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import RecipeError
from toolkit.rewards.base import RewardBatch
from toolkit.rewards.user import UserReward, load_function

SOURCE = """
def words(prompts, completions, completion_ids, references, difficulty, scale=1.0, **columns):
    assert prompts[0][0]["role"] == "user" and "sample_id" in columns and len(completion_ids) == len(prompts)
    texts = [completion[0]["content"] for completion in completions]
    return [None if not text else float("nan") if text == "fail" else scale * len(text.split()) for text in texts]
async def later(**columns):
    return []
def short(**columns):
    return [1.0]
number = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_reward.py"
    path.write_text(SOURCE)
    return path


def test_a_function_in_a_file(file: Path, batch_of: Callable[..., RewardBatch]) -> None:
    reward = UserReward(load_function(f"{file}:words"), name="words", options={"scale": 2.0})
    output = reward(batch_of(["a b c", "", "fail"]))
    assert output.scores[0] == 6.0
    assert output.applies.tolist() == [True, False, True]
    assert output.failed.tolist() == [False, False, True]


def test_a_function_in_a_module() -> None:
    assert load_function("math:floor")(2.5) == 2  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("nofile.py:f", "no file nofile.py"),
        ("no_such_module_at_all:f", "cannot import"),
        ("math:nothing", "has no function"),
        ("math", "expected 'package.module:function'"),
    ],
)
def test_what_cannot_be_loaded_is_named(location: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_function(location)


def test_no_function_and_async_are_refused(file: Path) -> None:
    with pytest.raises(RecipeError, match="has no function 'number'"):
        load_function(f"{file}:number")
    with pytest.raises(RecipeError, match="async"):
        load_function(f"{file}:later")


def test_a_wrong_number_of_scores_is_refused(file: Path, batch_of: Callable[..., RewardBatch]) -> None:
    reward = UserReward(load_function(f"{file}:short"), name="short")
    with pytest.raises(RecipeError, match="returned 1 scores for 2 completions"):
        reward(batch_of(["a", "b"]))
    assert np.isfinite(reward(batch_of(["a"])).scores).all()
