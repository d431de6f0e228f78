"""clipscore is what ``score clip`` computes, by a model that nothing trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from toolkit.config.schema import RewardTerm
from toolkit.errors import CheckpointError, RecipeError
from toolkit.models.clipscore import ClipScorer
from toolkit.rewards.base import RewardBatch
from toolkit.rewards.building import build_reward
from toolkit.rewards.clip import ClipReward

Batches = Callable[..., RewardBatch]
TEXTS = ["a red square", "a blue thing", "red", "a red square"]


@pytest.fixture
def batch(tmp_path: Path, batch_of: Batches) -> RewardBatch:
    for colour in ("red", "blue"):
        Image.new("RGB", (20, 24), colour).save(tmp_path / f"{colour}.png")
    plain = batch_of(TEXTS, tasks=["caption", "caption", "vqa", "caption"])
    colours = ("red", "blue", "red", "blue")
    rows = [replace(row, images=(tmp_path / f"{c}.png",)) for row, c in zip(plain.rows, colours, strict=True)]
    return replace(plain, rows=rows)


def test_scores_are_those_of_the_metric_and_questions_are_left_out(
    tiny_clip: Path, batch: RewardBatch
) -> None:
    reward = build_reward([RewardTerm(term="clipscore", options={"model": str(tiny_clip)})], references={})
    output = reward(batch)
    captions = [0, 1, 3]
    direct = ClipScorer(str(tiny_clip)).score(
        [batch.rows[index].images[0] for index in captions], [TEXTS[index] for index in captions]
    )
    assert output.parts["clipscore"][captions].tolist() == direct.clip.tolist()
    assert output.applies.tolist() == [True, True, False, True]
    assert output.scores[0] != output.scores[3]  # the same words about another picture
    alone = [reward(batch.take([index])).scores[0] for index in captions]
    assert alone == pytest.approx(direct.clip.tolist(), abs=1e-6)


def test_nothing_is_trained_and_no_random_number_drawn(tiny_clip: Path, batch: RewardBatch) -> None:
    reward = ClipReward(model=str(tiny_clip), device="cpu", batch_size=2)
    model = reward._scorer._model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    before = torch.get_rng_state()
    first, second = reward(batch), reward(batch)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(first.scores, second.scores, equal_nan=True)
    assert torch.is_grad_enabled()


def test_rows_with_several_pictures_or_none_do_not_apply(tiny_clip: Path, batch: RewardBatch) -> None:
    first, second = batch.rows[0], batch.rows[1]
    rows = [replace(first, images=first.images * 2), replace(second, images=())]
    output = ClipReward(model=str(tiny_clip))(RewardBatch(rows, ["a", "b"], [True] * 2, [2, 2]))
    assert not output.applies.any()


def test_what_cannot_be_built_says_why(tiny_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no directory"):
        build_reward([RewardTerm(term="clipscore", options={"model": str(tmp_path / "gone")})], references={})
    for options, problem in (
        ({}, "clipscore needs model"),
        ({"model": str(tiny_clip), "batch_size": 0}, "batch_size >= 1"),
        ({"model": str(tiny_clip), "device": "abacus"}, "no torch device"),
    ):
        with pytest.raises(RecipeError, match=problem):
            build_reward([RewardTerm(term="clipscore", options=options)], references={})
