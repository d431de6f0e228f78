"""The loop on families that carry pictures each in its own way: LLaVA, tiles (Idefics3), patches (Qwen2.5-VL)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from toolkit.rewards.base import RewardOutput
from toolkit.rl import guards
from toolkit.rl.experience import build_experience
from toolkit.rl.rollout import Rollout
from toolkit.rl.trainer import PpoTrainer

from .conftest import FAMILIES, SIZES

Trainers = Callable[..., PpoTrainer]


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_mixed_sizes_survive_features_shuffling_and_minibatches(
    make_trainer: Trainers, family: str, bits: int | None
) -> None:
    changes = {"ppo__iterations": 2, "ppo__critic": "adapter"}
    trainer = make_trainer(family=family, bits=bits, sizes=SIZES, **changes)
    randomise_head(trainer)
    rollout = trainer.worker.collect(trainer.rows[:8], seed=1)
    assert all(prompt.features is not None for prompt in rollout.prompts)
    pixels = [replace(prompt, features=None) for prompt in rollout.prompts]
    assert_same(trainer.worker.score(rollout.rows, pixels, rollout.completions), rollout, list(range(8)))
    order = [5, 2, 7, 0]
    some = trainer.worker.score(
        [rollout.rows[i] for i in order],
        [rollout.prompts[i] for i in order],
        [rollout.completions[i] for i in order],
    )
    assert_same(some, rollout, order)
    trainer.train()
    lines = trainer.run.metrics.read()
    assert len(lines) == 2
    assert lines[0]["kl/k1_nats"] == pytest.approx(0.0, abs=1e-5)
    assert lines[1]["kl/k3_nats"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_completion_alone_is_valued_as_in_any_batch(make_trainer: Trainers, family: str) -> None:
    trainer = make_trainer(family=family, ppo__critic="adapter")
    randomise_head(trainer)
    rollout = trainer.worker.collect(trainer.rows[:4], seed=2)
    assert rollout.values is not None
    assert float(rollout.values.abs().max()) > 1e-2
    for index in range(4):
        one = slice(index, index + 1)
        alone = trainer.worker.score(rollout.rows[one], rollout.prompts[one], rollout.completions[one])
        assert_same(alone, rollout, [index])


@pytest.mark.parametrize("family", FAMILIES)
def test_one_picture_empty_captions_and_equal_scores_have_a_defined_result(
    make_trainer: Trainers, family: str
) -> None:
    trainer = make_trainer(family=family, ppo__critic="adapter")
    rows = trainer.rows[:1] * 8
    prompts, completions = trainer.worker.sample(rows, seed=1, samples=1)
    end = torch.tensor([trainer.vlm.tokenizer.eos_token_id])
    empty = replace(completions[0], token_ids=end, text="", ended=True)
    rollout = trainer.worker.score(rows, prompts, [empty] * 5 + completions[5:])
    experience = build_experience(
        rollout,
        RewardOutput(np.ones(8)),
        trainer.recipe.ppo,
        kl_coefficient=0.1,
        reduce=trainer.engine.all_sum,
    )
    assert experience.mask.sum(1)[:5].tolist() == [1.0] * 5
    statistics = trainer.updater.update(experience, seed=1, warming_up=False)
    assert all(math.isfinite(value) for value in (*statistics.sums.values(), *statistics.grad_norms))
    assert all(torch.isfinite(item).all() for _, item in trainer.engine.module.trained_parameters())
    gap, found = guards.vision_gap(trainer.worker, rollout)
    assert (gap, found) == (0.0, 0)


def randomise_head(trainer: PpoTrainer) -> None:
    """Values that differ: the head starts at zero."""
    with torch.no_grad():
        trainer.engine.module.value_head.linear.weight.normal_(generator=torch.Generator().manual_seed(0))


def assert_same(some: Rollout, whole: Rollout, rows: list[int]) -> None:
    """Log-probabilities, reference and values of ``some`` are those of ``rows`` of ``whole``."""
    for name in ("logprobs", "reference", "values"):
        found, expected = getattr(some, name), getattr(whole, name)
        assert torch.allclose(found, expected[rows, : found.shape[1]], atol=2e-5), name
