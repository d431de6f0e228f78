"""Phase 8: minibatches, accumulation, gradients, and what holds before the first update."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from toolkit.errors import RunFailed
from toolkit.models.roles import role_parameters
from toolkit.rewards.base import RewardOutput
from toolkit.rl.experience import Experience, build_experience
from toolkit.rl.trainer import PpoTrainer
from toolkit.rl.update import UpdateStatistics, minibatches

from .conftest import FAMILIES

Trainers = Callable[..., PpoTrainer]


def experience_of(trainer: PpoTrainer, *, seed: int = 5, rows: int = 8) -> Experience:
    """One rollout of the first ``rows`` prompts with random scores."""
    rollout = trainer.worker.collect(trainer.rows[:rows], seed=seed)
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(len(rollout), generator=generator).double().numpy()
    return build_experience(
        rollout, RewardOutput(scores), trainer.recipe.ppo, kl_coefficient=0.1, reduce=trainer.engine.all_sum
    )


def gradients(trainer: PpoTrainer) -> dict[str, torch.Tensor]:
    """The gradients of everything that trains, after an update."""
    return {name: item.grad.clone() for name, item in trainer.engine.module.trained_parameters()}


@pytest.mark.parametrize(("rows", "count"), [(8, 2), (20, 2), (64, 4), (6, 1)])
def test_every_row_is_in_one_minibatch_and_processes_agree(rows: int, count: int) -> None:
    single = minibatches(rows, count, world=1, rank=0, seed=3)
    assert sorted(row for batch in single for row in batch) == list(range(rows))
    assert {len(batch) for batch in single} == {rows // count}
    if rows % 2 == 0:
        half = rows // 2
        ranks = [minibatches(half, count, world=2, rank=rank, seed=3) for rank in range(2)]
        joined = [
            sorted(first + [row + half for row in second]) for first, second in zip(*ranks, strict=True)
        ]
        assert joined == [sorted(batch) for batch in single]
        assert {len(batch) for batches in ranks for batch in batches} == {half // count}
    assert minibatches(rows, count, world=1, rank=0, seed=4) != single


@pytest.mark.parametrize("family", FAMILIES)
def test_eight_times_one_equals_one_times_eight(make_trainer: Trainers, family: str) -> None:
    """Accumulating ragged rows one by one gives the gradient of the whole minibatch."""
    found = []
    for pieces in (1, 8):
        trainer = make_trainer(
            name=f"run{pieces}",
            family=family,
            ppo__minibatches=1,
            ppo__epochs=1,
            ppo__gradient_accumulation=pieces,
            ppo__entropy_weight=0.01,
            optimizer__max_grad_norm=None,
            rollout__max_new_tokens=12,
        )
        experience = experience_of(trainer)
        experience.mask[1, 3:] = 0.0
        experience.mask[4, 1:] = 0.0
        statistics = trainer.updater.update(experience, seed=1, warming_up=False)
        found.append((gradients(trainer), statistics.sums))
    (whole, whole_sums), (parts, parts_sums) = found
    assert whole.keys() == parts.keys()
    for name in whole:
        assert torch.allclose(whole[name], parts[name], atol=5e-6, rtol=1e-4), name
    assert parts_sums == pytest.approx(whole_sums, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_ratio_is_one_and_policy_equals_reference_before_the_first_update(
    make_trainer: Trainers, family: str
) -> None:
    trainer = make_trainer(family=family)
    experience = experience_of(trainer)
    assert float(experience.kl_k1.abs().max()) == 0.0
    statistics = trainer.updater.update(experience, seed=1, warming_up=False)
    assert statistics.first_ratio_error is not None
    assert statistics.first_ratio_error < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("critic", ["shared", "adapter"])
def test_every_trainable_parameter_gets_a_gradient_and_nothing_else(
    make_trainer: Trainers, critic: str, family: str
) -> None:
    trainer = make_trainer(family=family, ppo__critic=critic)
    with trainer.engine.watch_gradients() as seen:
        trainer.updater.update(experience_of(trainer), seed=1, warming_up=False)
    assert seen == set(trainer.engine.trainable_names())
    trained = {id(item) for _, item in trainer.engine.module.trained_parameters()}
    others = [item for item in trainer.engine.module.parameters() if id(item) not in trained]
    assert all(item.grad is None and not item.requires_grad for item in others)


def test_one_backward_equals_two_separate_ones(make_trainer: Trainers) -> None:
    """The adapter critic's gradients are those of the value loss alone, the policy's those of the policy loss."""
    found = {}
    for weight in (0.0, 0.5):
        trainer = make_trainer(
            name=f"weight{weight}", ppo__critic="adapter", ppo__value_weight=weight, ppo__minibatches=1,
            ppo__epochs=1, optimizer__max_grad_norm=None,
        )  # fmt: skip
        trainer.updater.update(experience_of(trainer), seed=1, warming_up=False)
        found[weight] = gradients(trainer)
    policy = [name for name in found[0.5] if ".default." in name]
    critic = [name for name in found[0.5] if ".value." in name or name.startswith("value_head")]
    assert policy
    assert critic
    assert all(torch.allclose(found[0.0][name], found[0.5][name], atol=1e-7) for name in policy)
    assert all(float(found[0.0][name].abs().max()) == 0.0 for name in critic)
    assert any(float(found[0.5][name].abs().max()) > 0.0 for name in critic)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("critic", ["shared", "adapter"])
def test_gradients_with_activation_checkpointing_equal_those_without(
    make_trainer: Trainers, critic: str, family: str
) -> None:
    found = []
    for checkpointing in (False, True):
        trainer = make_trainer(
            name=f"gc{checkpointing}", family=family, checkpointing=checkpointing, ppo__critic=critic,
            ppo__minibatches=1, ppo__epochs=1, optimizer__max_grad_norm=None,
        )  # fmt: skip
        assert trainer.vlm.model.training == checkpointing
        with torch.no_grad():  # PEFT starts B at zero, which hides the value role's gradients
            for _, parameter in role_parameters(trainer.vlm.model, "value") if critic == "adapter" else []:
                parameter.add_(0.1)
            trainer.engine.module.value_head.linear.weight.add_(0.1)
        trainer.updater.update(experience_of(trainer), seed=1, warming_up=False)
        found.append(torch.cat([value.flatten() for value in gradients(trainer).values()]))
    cosine = torch.nn.functional.cosine_similarity(found[0], found[1], dim=0)
    assert float(cosine) > 0.99999


def test_warm_up_moves_the_critic_alone(make_trainer: Trainers) -> None:
    trainer = make_trainer(optimizer__weight_decay=0.1)
    before = [value.clone() for _, value in role_parameters(trainer.vlm.model, "default")]
    trainer.updater.update(experience_of(trainer), seed=1, warming_up=True)
    for old, (_, new) in zip(before, role_parameters(trainer.vlm.model, "default"), strict=True):
        assert torch.equal(old, new)
    assert trainer.engine.module.value_head.linear.weight.any()
    trainer.updater.update(experience_of(trainer), seed=2, warming_up=False)
    assert any(
        not torch.equal(old, new)
        for old, (_, new) in zip(before, role_parameters(trainer.vlm.model, "default"), strict=True)
    )


def test_epochs_end_early_over_the_kl_limit(make_trainer: Trainers) -> None:
    trainer = make_trainer(
        ppo__epochs=4, kl__stop_epochs_above_nats=1e-6, optimizer__learning_rate=1e-2, ppo__minibatches=2
    )
    statistics = trainer.updater.update(experience_of(trainer), seed=1, warming_up=False)
    assert statistics.stopped_early
    assert statistics.updates == 2


def test_failed_rewards_train_nothing(make_trainer: Trainers) -> None:
    trainer = make_trainer()
    rollout = trainer.worker.collect(trainer.rows[:8], seed=1)
    scores = torch.full((8,), float("nan")).double().numpy()
    scores[3] = 1.0
    experience = build_experience(
        rollout, RewardOutput(scores), trainer.recipe.ppo, kl_coefficient=0.0, reduce=trainer.engine.all_sum
    )
    assert experience.mask.sum(1).nonzero().flatten().tolist() == [3]
    assert torch.isfinite(experience.advantages).all()
    assert float(experience.advantages[[0, 1, 2, 4]].abs().max()) == 0.0
    statistics = trainer.updater.update(experience, seed=1, warming_up=False)
    assert all(torch.isfinite(value).all() for value in gradients(trainer).values())
    assert statistics.sums["completions"] == 16.0


def test_a_completion_that_was_cut_pays_the_penalty(make_trainer: Trainers) -> None:
    trainer = make_trainer(ppo__missing_eos_penalty=2.5)
    rollout = trainer.worker.collect(trainer.rows[:8], seed=1)
    output = RewardOutput(torch.zeros(8).double().numpy())
    experience = build_experience(
        rollout, output, trainer.recipe.ppo, kl_coefficient=0.0, reduce=trainer.engine.all_sum
    )
    expected = [0.0 if item.ended else -2.5 for item in rollout.completions]
    assert experience.scores.tolist() == expected
    assert -2.5 in expected


def test_a_wrong_number_of_losses_is_refused(make_trainer: Trainers) -> None:
    with pytest.raises(RunFailed, match="accumulation"):
        make_trainer().engine.step([])


def test_statistics_add_up() -> None:
    statistics = UpdateStatistics()
    statistics.add(tokens=2.0)
    statistics.add(tokens=3.0, entropy=1.0)
    assert statistics.sums == {"tokens": 5.0, "entropy": 1.0}
