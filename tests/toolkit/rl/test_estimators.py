"""Critic-free advantages against loops written from the papers, and runs without a critic."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from toolkit.errors import RunFailed
from toolkit.rewards.base import RewardOutput
from toolkit.rl.advantages import whiten
from toolkit.rl.estimators import RunningBaseline, completion_returns, grpo, over_tokens, rloo
from toolkit.rl.experience import build_experience
from toolkit.rl.prompt_order import PromptOrder
from toolkit.rl.trainer import PpoTrainer

from .conftest import make_rows, stop_in

Trainers = Callable[..., PpoTrainer]
ALL_USABLE = torch.ones(12, dtype=torch.bool)


def _kept(sums: list[torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """A reduction that notes what a process adds."""

    def reduce(values: torch.Tensor) -> torch.Tensor:
        sums.append(values)
        return values

    return reduce


def drawn(seed: int = 0) -> torch.Tensor:
    """Returns of three prompts with four samples each."""
    return torch.randn(12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("lost", [(), (5,), (0, 1, 2), (4, 5, 6, 7)])
def test_rloo_equals_the_loop(lost: tuple[int, ...]) -> None:
    """Ahmadian et al. 2024, equation 8: minus the mean of the other samples."""
    returns, usable = drawn(), ALL_USABLE.clone()
    usable[list(lost)] = False
    got = rloo(torch.where(usable, returns, torch.nan), usable, group=4)
    for index in range(12):
        group = range(index // 4 * 4, index // 4 * 4 + 4)
        others = [float(returns[j]) for j in group if j != index and usable[j]]
        expected = float(returns[index]) - statistics.mean(others) if others and usable[index] else 0.0
        assert float(got[index]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("lost", [(), (5,), (0, 1, 2), (4, 5, 6, 7)])
def test_grpo_equals_the_loop(lost: tuple[int, ...]) -> None:
    """Shao et al. 2024: standardised within the group."""
    returns, usable = drawn(1), ALL_USABLE.clone()
    usable[list(lost)] = False
    got = grpo(torch.where(usable, returns, torch.nan), usable, group=4)
    for start in (0, 4, 8):
        members = [j for j in range(start, start + 4) if usable[j]]
        values = [float(returns[j]) for j in members]
        spread = statistics.stdev(values) if len(values) > 1 else 1.0
        for j in range(start, start + 4):
            expected = (float(returns[j]) - statistics.mean(values)) / (spread + 1e-4) if usable[j] else 0.0
            assert float(got[j]) == pytest.approx(expected, abs=1e-5)


def test_equal_samples_and_single_samples_teach_nothing() -> None:
    for estimator in (rloo, grpo):
        assert estimator(torch.full((6,), 2.5), ALL_USABLE[:6], group=3).abs().max() == 0.0
        assert estimator(torch.tensor([3.0, 4.0]), ALL_USABLE[:2], group=1).tolist() == [0.0, 0.0]


def test_returns_charge_the_kl_of_the_whole_completion() -> None:
    kl = torch.tensor([[0.5, 1.0, 9.0], [2.0, -1.0, 0.25]])
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    got = completion_returns(torch.tensor([1.0, 2.0]), kl, mask, 0.1)
    assert got.tolist() == pytest.approx([1.0 - 0.15, 2.0 - 0.125])
    assert over_tokens(got, mask)[0].tolist() == pytest.approx([0.85, 0.85, 0.0])


def test_the_running_baseline_equals_the_loop_by_task_and_over_processes() -> None:
    tasks = ["caption", "vqa"] * 6
    whole, halves = RunningBaseline(0.8), [RunningBaseline(0.8) for _ in range(2)]
    means: dict[str, float] = {}
    for step in range(4):
        returns, usable = drawn(step), ALL_USABLE.clone()
        usable[step] = False
        got = whole(torch.where(usable, returns, 0.0), usable, tasks, reduce=lambda sums: sums)
        expected = torch.zeros(12)
        for task in ("caption", "vqa"):
            members = [i for i in range(12) if tasks[i] == task and usable[i]]
            mean = statistics.mean(float(returns[i]) for i in members)
            before = means.get(task, mean)
            expected[members] = returns[members] - before
            means[task] = 0.8 * before + 0.2 * mean
        assert torch.allclose(got, expected, atol=1e-6)
        sums: list[torch.Tensor] = []
        for half in halves:  # what each process adds, then the sum on each
            probe = RunningBaseline(0.8)
            probe.load_state_dict(half.state_dict())
            rows = slice(0, 6) if half is halves[0] else slice(6, 12)
            probe(returns[rows], usable[rows], tasks[rows], reduce=_kept(sums))
        total = sums[0] + sums[1]
        for half, rows in zip(halves, (slice(0, 6), slice(6, 12)), strict=True):
            part = half(returns[rows], usable[rows], tasks[rows], reduce=lambda _, total=total: total)  # type: ignore[misc]
            assert torch.allclose(part, expected[rows], atol=1e-6)
    assert whole.state_dict() == pytest.approx(means)


def test_groups_stay_whole_over_processes() -> None:
    """Prompts are dealt out, not samples: every process holds all samples of its prompts."""
    order = PromptOrder(make_rows(10), 6, seed=1)
    shares = [order.share(0, rank=rank, world=3) for rank in range(3)]
    names = [row.sample_id for share in shares for row in share]
    assert len(set(names)) == 6
    assert names == [row.sample_id for row in order.share(0)]


def test_an_experience_equals_the_loop(make_trainer: Trainers) -> None:
    """Score, penalty, KL and whitening of a critic-free run, on log-probabilities that differ from the reference."""
    trainer = make_trainer(
        ppo__estimator="rloo", rollout__samples_per_prompt=4, rollout__prompts_per_iteration=2,
        ppo__missing_eos_penalty=0.5,
    )  # fmt: skip
    rollout = trainer.worker.collect(trainer.rows[:2], seed=4)
    assert rollout.values is None
    rollout.reference = rollout.reference - 0.3 * rollout.mask
    scores = np.random.default_rng(0).normal(size=8)
    scores[2] = np.nan
    got = build_experience(
        rollout, RewardOutput(scores), trainer.recipe.ppo, kl_coefficient=0.2, reduce=lambda value: value,
        critic_free=trainer.appraisal._estimator(rollout),
    )  # fmt: skip
    totals = [
        float(scores[i]) - 0.5 * (not item.ended) - 0.2 * 0.3 * len(item.token_ids)
        for i, item in enumerate(rollout.completions)
    ]
    expected = torch.zeros_like(got.mask)
    for i in range(8):
        others = [totals[j] for j in range(i // 4 * 4, i // 4 * 4 + 4) if j not in (i, 2)]
        if i != 2:
            expected[i] = (totals[i] - statistics.mean(others)) * rollout.mask[i]
    assert torch.allclose(got.advantages, whiten(expected, got.mask), atol=1e-4)
    assert got.returns is None
    assert got.explained_variance is None


def test_scst_compares_with_the_greedy_completion(make_trainer: Trainers, tmp_path: Path) -> None:
    file = tmp_path / "spread.py"
    file.write_text(
        "def spread(completions, **columns):\n    return [float(len(set(c[0]['content']))) for c in completions]\n"
    )
    trainer = make_trainer(
        ppo__estimator="scst", ppo__whiten_advantages=False, ppo__missing_eos_penalty=0.25, kl__coefficient=0.0,
        rewards=[{"term": f"{file}:spread"}], rollout__samples_per_prompt=2, rollout__prompts_per_iteration=4,
    )  # fmt: skip
    rollout = trainer.worker.collect(trainer.rows[:4], seed=4)
    output = trainer.appraisal.rewards(rollout, progress=0.0)
    experience = trainer.appraisal.experience(rollout, output, kl_coefficient=0.0)
    greedy = trainer.worker.greedy(trainer.worker.cache.encode(trainer.rows[:4]))
    for index, sample in enumerate(rollout.completions):
        best = greedy[index // 2]
        own, other = (len(set(c.text)) - 0.25 * (not c.ended) for c in (sample, best))
        tokens = len(sample.token_ids)
        assert experience.advantages[index, :tokens].tolist() == pytest.approx([own - other] * tokens)
    assert experience.advantages.abs().max() > 0


def test_scst_counts_the_rows_whose_greedy_completion_has_no_score(
    make_trainer: Trainers, tmp_path: Path
) -> None:
    file = tmp_path / "spread.py"
    file.write_text(
        "greedy = set()\n"
        "def spread(completions, **columns):\n"
        "    texts = [c[0]['content'] for c in completions]\n"
        "    return [float('nan') if text in greedy else float(len(set(text))) for text in texts]\n"
    )
    trainer = make_trainer(
        ppo__estimator="scst", rewards=[{"term": f"{file}:spread"}],
        rollout__samples_per_prompt=2, rollout__prompts_per_iteration=4,
        guards__failed_fraction_max=0.25,
    )  # fmt: skip
    rollout = trainer.worker.collect(trainer.rows[:4], seed=4)
    fails = trainer.worker.greedy(trainer.worker.cache.encode(trainer.rows[:1]))[0].text
    assert fails not in {item.text for item in rollout.completions}
    vars(trainer.reward.terms[0].reward)["function"].__globals__["greedy"].add(fails)
    output = trainer.appraisal.rewards(rollout, progress=0.0)
    experience = trainer.appraisal.experience(rollout, output, kl_coefficient=0.0)
    masked = (experience.mask.sum(1) == 0).tolist()
    assert masked[:2] == [True, True]
    assert output.failed.tolist() == masked
    trainer.appraisal.recipe = make_trainer(name="strict", guards__failed_fraction_max=0.2).recipe
    with pytest.raises(RunFailed, match=r"25\.0% of the rewards failed, .*the greedy baseline"):
        trainer.appraisal._refuse_failures(rollout, output)


@pytest.mark.parametrize(
    ("estimator", "samples"), [("rloo", 4), ("grpo", 4), ("scst", 1), ("scst", 2), ("running", 1)]
)
def test_a_run_without_a_critic_learns(
    make_trainer: Trainers, letters: list[dict[str, Any]], estimator: str, samples: int
) -> None:
    trainer = make_trainer(
        rewards=letters, ppo__estimator=estimator, ppo__iterations=8, rollout__samples_per_prompt=samples,
        rollout__prompts_per_iteration=32 // samples, optimizer__learning_rate=5e-3, run__save_every_steps=4,
    )  # fmt: skip
    assert trainer.engine.module.value_head is None
    assert trainer.engine.module.head_parameters() == []
    trainer.train()
    lines = trainer.run.metrics.read()
    first, last = (sum(line["reward/letters"] for line in part) for part in (lines[:2], lines[-2:]))
    assert last > 1.3 * first
    assert not any(name.startswith("value/") for name in lines[0])
    assert not (trainer.run.path / "checkpoint-4" / "value_head.safetensors").exists()


def test_resume_keeps_the_running_baseline(make_trainer: Trainers, letters: list[dict[str, Any]]) -> None:
    changes = {
        "rewards": letters,
        "ppo__estimator": "running",
        "ppo__iterations": 4,
        "run__save_every_steps": 2,
    }
    whole = make_trainer(name="whole", **changes)
    whole.train()
    broken = make_trainer(name="broken", **changes)
    stop_in(broken, 1)
    with pytest.raises(Exception, match="after iteration 1 of 4"):
        broken.train()
    broken.run.release()
    resumed = make_trainer(name="broken", resume=True, **changes)
    resumed.train(resume=True)
    first, second = (
        load_file(trainer.run.final / "adapter_model.safetensors") for trainer in (whole, resumed)
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())
