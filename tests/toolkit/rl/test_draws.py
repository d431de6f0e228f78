"""Rollouts as a function of (seed, sample, epoch); temperature schedule; reference refresh; dense shaping."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from toolkit.errors import Interrupted
from toolkit.models.encoding import collate
from toolkit.models.roles import role_parameters
from toolkit.rl.advantages import potential_rewards, shaped_rewards
from toolkit.rl.potentials import prefix_potentials
from toolkit.rl.prompt_order import PromptOrder
from toolkit.rl.trainer import PpoTrainer

from .conftest import make_rows, stop_in

Trainers = Callable[..., PpoTrainer]


def texts(trainer: PpoTrainer, *, rank: int = 0, world: int = 1) -> list[str]:
    """The completions of one process's share of the second iteration."""
    rows = trainer.order.share(1, rank=rank, world=world)
    draws = trainer.order.draws(1, samples=2, rank=rank, world=world)
    return [item.text for item in trainer.worker.collect(rows, seed=rank, row_seeds=draws).completions]


def test_any_number_of_processes_and_any_batch_sample_the_same(make_trainer: Trainers) -> None:
    changes = {"rollout__samples_per_prompt": 2, "rollout__draws": "row", "rollout__prompts_per_iteration": 8}
    trainer = make_trainer(**changes)
    whole = texts(trainer)
    assert len(set(whole)) > 8
    assert [text for rank in range(4) for text in texts(trainer, rank=rank, world=4)] == whole
    small = make_trainer(name="small", rollout__generation_batch_size=3, **changes)
    assert texts(small) == whole
    other = make_trainer(name="other", run__seed=1, **changes)
    other.order.rows = trainer.order.rows
    assert texts(other) != whole


def test_draws_differ_by_sample_epoch_and_number() -> None:
    order = PromptOrder(make_rows(4), 4, seed=0)
    first, second = (order.draws(iteration, samples=3) for iteration in (0, 1))
    assert len({*first, *second}) == 24
    assert order.draws(0, samples=3) == first
    assert order.draws(0, samples=3, rank=1, world=2) == first[6:]


def test_row_draws_come_from_the_scored_distribution(make_trainer: Trainers) -> None:
    """The surprise of a sampled token is, on average over many, the entropy of the distribution it is scored under."""
    trainer = make_trainer(rollout__samples_per_prompt=24, rollout__temperature=0.8)
    rows = trainer.rows[:16]
    rollout = trainer.worker.collect(rows, seed=0, row_seeds=range(len(rows) * 24))
    batch = collate(trainer.vlm, rollout.prompts, [item.token_ids for item in rollout.completions])
    with torch.no_grad():
        entropy = trainer.engine.prepared(batch, temperature=0.8, entropy=True).entropy
    excess = (-rollout.logprobs - entropy)[rollout.mask.bool()].double()
    error = float(excess.std() / excess.numel() ** 0.5)
    assert abs(float(excess.mean())) < 3 * error < 0.1


def test_the_temperature_moves_and_ratios_still_start_at_one(make_trainer: Trainers) -> None:
    """The behaviour policy's log-probabilities are those of the temperature it sampled at, in every iteration."""
    trainer = make_trainer(
        ppo__iterations=5,
        ppo__minibatches=1,
        ppo__epochs=1,
        rollout__temperature=1.0,
        rollout__final_temperature=0.5,
    )
    errors: list[float] = []
    update = trainer.updater.update

    def watched(*arguments: Any, **named: Any) -> Any:
        statistics = update(*arguments, **named)
        errors.append(statistics.first_ratio_error or 0.0)
        return statistics

    trainer.updater.update = watched  # type: ignore[method-assign]
    trainer.train()
    found = [line["rollout/temperature"] for line in trainer.run.metrics.read()]
    assert found == pytest.approx([1.0, 0.875, 0.75, 0.625, 0.5])
    assert max(errors) < 1e-4
    assert len(errors) == 5


def test_the_reference_is_refreshed_and_resumed(make_trainer: Trainers) -> None:
    changes: dict[str, Any] = {
        "ppo__iterations": 6, "kl__refresh_reference_every_iterations": 2, "optimizer__learning_rate": 5e-3
    }  # fmt: skip
    whole = make_trainer(name="whole", **changes)
    whole.train()
    lines = whole.run.metrics.read()
    assert [abs(line["kl/k1_nats"]) < 1e-4 for line in lines] == [True, False] * 3
    broken = make_trainer(name="broken", **changes)
    stop_in(broken, 3)
    with pytest.raises(Interrupted):
        broken.train()
    broken.run.release()
    resumed = make_trainer(name="broken", resume=True, **changes)
    resumed.train(resume=True)
    for name in ("default", "ref"):
        pairs = zip(
            role_parameters(whole.vlm.model, name), role_parameters(resumed.vlm.model, name), strict=True
        )
        assert all(torch.equal(a, b) for (_, a), (_, b) in pairs), name


# ---- dense shaping -----------------------------------------------------------------------------------------------


TOKENS, LENGTH = 3, 3
SEQUENCES = list(itertools.product(range(TOKENS), repeat=LENGTH))


def toy() -> tuple[dict[tuple[int, ...], float], dict[tuple[int, ...], float]]:
    """A score for every completion and an adversarial potential for every prefix of a language of three tokens."""
    generator = torch.Generator().manual_seed(3)
    scores = {s: float(torch.randn((), generator=generator)) for s in SEQUENCES}
    prefixes = [s for n in range(LENGTH) for s in itertools.product(range(TOKENS), repeat=n)]
    return scores, {p: float(3 * torch.randn((), generator=generator)) for p in prefixes}


def returns(gamma: float, *, shape: str) -> torch.Tensor:
    """The discounted return of every completion: plain, shaped, or with the potential itself as a bonus."""
    scores, potential = toy()
    mask = torch.ones(len(SEQUENCES), LENGTH)
    rewards = shaped_rewards(torch.tensor([scores[s] for s in SEQUENCES]), torch.zeros_like(mask), mask, 0.0)
    table = torch.tensor([[potential[s[:t]] for t in range(LENGTH)] for s in SEQUENCES])
    if shape == "potential":
        rewards = rewards + potential_rewards(table, mask, gamma=gamma)
    elif shape == "bonus":
        rewards = rewards + table
    return (rewards * gamma ** torch.arange(LENGTH)).sum(1)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_shaping_ranks_all_completions_of_a_toy_language_as_before(gamma: float) -> None:
    plain, shaped, bonus = (returns(gamma, shape=shape) for shape in ("plain", "potential", "bonus"))
    empty = toy()[1][()]
    assert torch.allclose(shaped, plain - empty, atol=1e-5)
    assert shaped.argmax() == plain.argmax()
    assert bonus.argmax() != plain.argmax()  # the same numbers as a bonus do move the optimum


@pytest.mark.parametrize(("shape", "same"), [("potential", True), ("bonus", False)])
def test_a_policy_trained_with_shaping_finds_the_same_optimum(shape: str, same: bool) -> None:
    """Exact policy gradient of a softmax policy over all prefixes."""
    best = {}
    for kind in ("plain", shape):
        table = torch.zeros(1 + TOKENS + TOKENS**2, TOKENS, requires_grad=True)
        optimizer = torch.optim.Adam([table], lr=0.1)
        offsets = [0, 1, 1 + TOKENS]
        states = torch.tensor(
            [[offsets[t] + sum(TOKENS**i * s[i] for i in range(t)) for t in range(LENGTH)] for s in SEQUENCES]
        )
        actions = torch.tensor(SEQUENCES)
        values = returns(1.0, shape=kind)
        for _ in range(300):
            logprobs = torch.log_softmax(table, 1)[states, actions].sum(1)
            loss = -(logprobs.exp() * values).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        best[kind] = int(torch.log_softmax(table, 1)[states, actions].sum(1).argmax())
    assert best["plain"] == int(returns(1.0, shape="plain").argmax())
    assert (best["plain"] == best[shape]) == same


def test_padding_and_the_end_have_no_potential() -> None:
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    got = potential_rewards(torch.tensor([[1.0, 2.0, 9.0], [1.0, 4.0, 6.0]]), mask, gamma=0.5)
    assert got.tolist() == [[0.0, -2.0, 0.0], [1.0, -1.0, -6.0]]


def test_potentials_are_scores_of_prefixes(make_trainer: Trainers, letters: list[dict[str, Any]]) -> None:
    trainer = make_trainer(
        rewards=letters, ppo__potential_term="letters", ppo__potential_weight=2.0, ppo__iterations=2
    )
    rollout = trainer.worker.collect(trainer.rows[:4], seed=1)
    term = trainer.reward.terms[0]
    found = prefix_potentials(lambda batch: trainer.reward.raw(term, batch), rollout, trainer.vlm.tokenizer)
    for index, item in enumerate(rollout.completions):
        for place in range(len(item.token_ids)):
            prefix = trainer.vlm.tokenizer.decode(item.token_ids[:place], skip_special_tokens=True)
            assert found[index, place] == prefix.count("e")
    assert found.max() > 0
    output = trainer.appraisal.rewards(rollout, progress=0.0)
    shaped = trainer.appraisal.experience(rollout, output, kl_coefficient=0.0)
    plain = make_trainer(name="plain", rewards=letters).appraisal.experience(
        rollout, output, kl_coefficient=0.0
    )
    assert not torch.allclose(shaped.advantages, plain.advantages)
    trainer.train()
