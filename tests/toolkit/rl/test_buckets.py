"""Rows of like lengths share a forward: fewer padded tokens, the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toolkit.rewards.base import RewardOutput
from toolkit.rl.buckets import buckets
from toolkit.rl.experience import build_experience
from toolkit.rl.rollout import Rollout
from toolkit.rl.trainer import PpoTrainer

from .conftest import FAMILIES

Trainers = Callable[..., PpoTrainer]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 6))
def test_every_row_is_in_one_group_and_groups_are_equal_and_ordered(lengths: list[int], count: int) -> None:
    groups = buckets(lengths, count)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    assert len(groups) == count
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    flat = [lengths[row] for group in groups for row in group]
    assert flat == (lengths if count == 1 else sorted(lengths, reverse=True))


def test_rows_of_one_length_keep_their_order() -> None:
    assert buckets([5, 5, 5, 5], 2) == [[0, 1], [2, 3]]


@contextmanager
def padding(trainer: PpoTrainer) -> Iterator[list[int]]:
    """Padded tokens of every forward inside the block."""
    seen: list[int] = []

    def count(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append(int((arguments[0].inputs["attention_mask"] == 0).sum()))

    handle = trainer.engine.module.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def ragged(trainer: PpoTrainer) -> Rollout:
    """Short and long completions in turn: 2 and 20 tokens."""
    prompts, completions = trainer.worker.sample(trainer.rows[:16], seed=3, samples=1)
    tokens = torch.arange(20) % 5 + 10
    cut = [
        replace(item, token_ids=tokens[: 2 if place % 2 else 20].clone())
        for place, item in enumerate(completions)
    ]
    return trainer.worker.score(trainer.rows[:16], prompts, cut)


@pytest.mark.parametrize("family", FAMILIES)
def test_scoring_in_buckets_pads_less_and_says_the_same(make_trainer: Trainers, family: str) -> None:
    trainer = make_trainer(family=family, sizes=[(24, 24)], rollout__generation_batch_size=4)
    with torch.no_grad():
        trainer.engine.module.value_head.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
    with padding(trainer) as padded:
        rollout = ragged(trainer)
    assert len(padded) == 2 * 4  # policy and reference, four forwards each
    assert sum(padded) == 0  # in the order of the rows: 2 × 4 × 2 × 18 tokens
    trainer.worker.spec = trainer.worker.spec.model_copy(update={"generation_batch_size": 16})
    with padding(trainer) as padded:
        together = trainer.worker.score(rollout.rows, rollout.prompts, rollout.completions)
    assert padded == [8 * 18, 8 * 18]
    for name in ("logprobs", "reference", "values", "mask"):
        assert torch.allclose(getattr(rollout, name), getattr(together, name), atol=1e-5), name


def test_micro_batches_pad_less_and_give_the_same_gradient(make_trainer: Trainers) -> None:
    found, padded_by = [], []
    for pieces in (1, 4):
        trainer = make_trainer(
            name=f"pieces{pieces}", ppo__minibatches=1, ppo__epochs=1, ppo__gradient_accumulation=pieces,
            optimizer__max_grad_norm=None, rollout__prompts_per_iteration=16,
        )  # fmt: skip
        rollout = ragged(trainer)
        scores = torch.randn(16, generator=torch.Generator().manual_seed(1)).double().numpy()
        experience = build_experience(
            rollout,
            RewardOutput(scores),
            trainer.recipe.ppo,
            kl_coefficient=0.1,
            reduce=trainer.engine.all_sum,
        )
        with padding(trainer) as padded:
            statistics = trainer.updater.update(experience, seed=1, warming_up=False)
        gradient = torch.cat([item.grad.flatten() for _, item in trainer.engine.module.trained_parameters()])
        found.append((gradient, statistics.sums))
        padded_by.append(padded)
    assert padded_by == [[8 * 18], [0, 0, 0, 0]]
    assert torch.allclose(found[0][0], found[1][0], atol=5e-6, rtol=1e-4)
    assert found[1][1] == pytest.approx(found[0][1], abs=1e-4)
