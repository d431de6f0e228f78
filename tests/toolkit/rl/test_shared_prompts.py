"""The samples of a prompt share one copy of it, in scoring and in training: the same numbers, fewer tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toolkit.models.structure import trunk
from toolkit.rl import guards
from toolkit.rl.buckets import buckets
from toolkit.rl.rollout import PromptCache
from toolkit.rl.trainer import PpoTrainer
from toolkit.rl.update import UpdateStatistics, minibatches

from .conftest import FAMILIES
from .test_update import experience_of, gradients

Trainers = Callable[..., PpoTrainer]
SIZES = {"rollout__prompts_per_iteration": 4, "rollout__samples_per_prompt": 4, "rollout__max_new_tokens": 6}


@pytest.mark.parametrize(("rows", "count", "group"), [(16, 2, 4), (64, 4, 4), (24, 2, 3)])
def test_samples_of_a_prompt_stay_in_one_minibatch(rows: int, count: int, group: int) -> None:
    single = minibatches(rows, count, world=1, rank=0, seed=3, group=group)
    assert sorted(row for batch in single for row in batch) == list(range(rows))
    for batch in single:
        assert len(batch) == rows // count
        starts = batch[::group]
        assert batch == [start + step for start in starts for step in range(group)]
        assert all(start % group == 0 for start in starts)
    half = rows // 2
    ranks = [minibatches(half, count, world=2, rank=rank, seed=3, group=group) for rank in range(2)]
    if half % (group * count) == 0:
        joined = [first + [row + half for row in second] for first, second in zip(*ranks, strict=True)]
        assert [sorted(batch) for batch in joined] == [sorted(batch) for batch in single]


def test_prompts_that_do_not_go_into_equal_minibatches_are_split() -> None:
    batches = minibatches(12, 2, world=1, rank=0, seed=0, group=4)
    assert batches == minibatches(12, 2, world=1, rank=0, seed=0)
    assert {len(batch) for batch in batches} == {6}


def test_runs_stay_beside_one_another_in_groups_of_equal_size() -> None:
    runs = [[0, 1], [2, 3], [4, 5]]
    assert buckets([1, 1, 9, 9, 5, 5], 3, runs) == [[2, 3], [4, 5], [0, 1]]
    assert buckets([3, 3, 3, 3], 2, [[0, 1, 2, 3]]) == [[0, 1], [2, 3]]


@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 6))
def test_no_group_is_larger_than_its_share_whatever_the_runs(prompts: int, samples: int, count: int) -> None:
    rows = prompts * samples
    runs = [list(range(start, start + samples)) for start in range(0, rows, samples)]
    lengths = [7 * (row // samples) % 5 + row % samples for row in range(rows)]
    groups = buckets(lengths, count, runs)
    assert sorted(row for group in groups for row in group) == list(range(rows))
    assert len(groups) == count
    assert max(map(len, groups)) - min(map(len, groups)) <= 1


@pytest.mark.parametrize("critic", ["shared", "adapter"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_updates_and_vision_gap_are_those_of_separate_rows(
    make_trainer: Trainers, family: str, critic: str
) -> None:
    found = {}
    for shares in (True, False):
        trainer = make_trainer(
            name=f"shares{shares}", family=family, ppo__critic=critic, ppo__minibatches=1, ppo__epochs=1,
            optimizer__max_grad_norm=None, rollout__share_prompts=shares, rollout__draws="row", **SIZES,
        )  # fmt: skip
        assert trainer.worker.shares is shares
        tokens: list[int] = []
        handle = trunk(trainer.vlm.model).register_forward_pre_hook(
            lambda _, args, kwargs, tokens=tokens: tokens.append(kwargs["input_ids"].numel()),
            with_kwargs=True,
        )
        experience = experience_of(trainer, rows=4)
        statistics = UpdateStatistics()
        before = sum(tokens)
        trainer.updater.update(experience, seed=1, warming_up=False, statistics=statistics)
        handle.remove()
        found[shares] = experience, statistics, gradients(trainer), sum(tokens) - before, trainer
    (one, sums, grads, tokens_shared, trainer), (two, sums_apart, grads_apart, tokens_apart, _) = (
        found[True], found[False],
    )  # fmt: skip
    for first, second in zip(one.rollout.completions, two.rollout.completions, strict=True):
        assert torch.equal(first.token_ids, second.token_ids)
    for name in ("logprobs", "reference", "values", "mask"):
        torch.testing.assert_close(getattr(one.rollout, name), getattr(two.rollout, name), atol=2e-5, rtol=0)
    assert sums.first_ratio_error is not None
    assert sums.first_ratio_error < 1e-5
    assert sums.sums == pytest.approx(sums_apart.sums, abs=2e-4)
    for name, gradient in grads_apart.items():
        torch.testing.assert_close(grads[name], gradient, atol=2e-5, rtol=1e-3, msg=name)
    assert tokens_shared < 0.6 * tokens_apart
    gap = guards.vision_gap(trainer.worker, one.rollout)
    trainer.worker.shares = False
    assert gap == pytest.approx(guards.vision_gap(trainer.worker, one.rollout), abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_about_one_picture_pass_the_tower_once(
    make_trainer: Trainers, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(family=family, vqa=True)
    first, second = trainer.rows[:2]
    assert (first.task, second.task) == ("caption", "vqa")
    rows = [first, replace(second, images=first.images), replace(first, images=second.images)]
    pictures = []
    features = trunk(trainer.vlm.model).get_image_features

    def counted(**inputs: Any) -> Any:
        output = features(**inputs)
        pictures.append(len(output.pooler_output))
        return output

    monkeypatch.setattr(trunk(trainer.vlm.model), "get_image_features", counted)
    alone = [trainer.worker.encoded([row])[0] for row in rows]
    trainer.worker.cache = PromptCache(trainer.vlm)
    pictures.clear()
    together = trainer.worker.encoded(rows)
    assert sum(pictures) == len({row.images for row in rows}) == 2
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.input_ids, other.input_ids)
        for a, b in zip(one.features or (), other.features or (), strict=True):
            torch.testing.assert_close(a.pooled, b.pooled, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [{"bits": 4}, {"dtype": "bfloat16"}, {"bits": 4, "dtype": "bfloat16"}])
def test_four_bit_and_half_precision_bases_share_too(make_trainer: Trainers, kind: dict[str, Any]) -> None:
    """The same completions, scored behind one copy and in sequences of their own; half precision rounds at 1e-2."""
    trainer = make_trainer(**kind, **SIZES)
    experience = experience_of(trainer, rows=4)
    rollout = experience.rollout
    trainer.worker.shares = False
    apart = trainer.worker.score(rollout.rows, rollout.prompts, rollout.completions)
    limit = 0.1 if "dtype" in kind else 2e-4
    for name in ("logprobs", "reference"):
        torch.testing.assert_close(getattr(rollout, name), getattr(apart, name), atol=limit, rtol=0)
    trainer.worker.shares = True
    statistics = trainer.updater.update(experience, seed=1, warming_up=False)
    assert statistics.first_ratio_error is not None
    assert statistics.first_ratio_error < limit


@pytest.mark.parametrize("estimator", ["grpo", "gae"])
def test_accumulation_over_shared_prompts_is_the_whole_minibatch(
    make_trainer: Trainers, estimator: str
) -> None:
    found = []
    for pieces in (1, 4):
        trainer = make_trainer(
            name=f"run{pieces}", ppo__estimator=estimator, ppo__whiten_advantages=False, ppo__minibatches=1,
            ppo__epochs=1, ppo__gradient_accumulation=pieces, optimizer__max_grad_norm=None, **SIZES,
        )  # fmt: skip
        trainer.train()
        found.append(gradients(trainer))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5, rtol=1e-3, msg=name)
