"""The loop on families that carry pictures each in its own way: LLaVA, tiles (Idefics3), patches (Qwen2.5-VL)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

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


def randomise_head(trainer: PpoTrainer) -> None:
    """Values that differ: the head starts at zero."""
    with torch.no_grad():
        trainer.engine.module.value_head.linear.weight.normal_(generator=torch.Generator().manual_seed(0))


def assert_same(some: Rollout, whole: Rollout, rows: list[int]) -> None:
    """Log-probabilities, reference and values of ``some`` are those of ``rows`` of ``whole``."""
    for name in ("logprobs", "reference", "values"):
        found, expected = getattr(some, name), getattr(whole, name)
        assert torch.allclose(found, expected[rows, : found.shape[1]], atol=2e-5), name
