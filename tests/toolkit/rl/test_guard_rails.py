"""Each rail fires on what it is for and on nothing else; over-optimisation is caught in real runs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.config.schema import GuardSpec
from toolkit.errors import RunFailed
from toolkit.models.loading import LoadedVlm
from toolkit.rewards.held_out import HeldOut, held_out_scores
from toolkit.rl.guard_rails import CRITIC_WINDOW, GuardRails
from toolkit.rl.rollout import reward_batch
from toolkit.rl.trainer import PpoTrainer

Trainers = Callable[..., PpoTrainer]

HEALTHY = {
    "reward/total": 0.5,
    "reward/flat_fraction": 0.0,
    "kl/k1_nats": 2.0,
    "rollout/tokens": 10.0,
    "rollout/distinct_word_fraction": 0.10,
    "rollout/repeated_fraction": 0.02,
    "rollout/bad_ending_fraction": 0.05,
    "value/explained_variance": 0.1,
    "value/spread": 0.4,
}
BROKEN = {
    "kl": ({"kl/k1_nats": 10.1}, "1.01 nats a token"),
    "length": ({"rollout/tokens": 20.1}, "20.1 tokens, 10.0 at the start"),
    "vocabulary": ({"rollout/distinct_word_fraction": 0.049}, "vocabulary collapses"),
    "repetition": ({"rollout/repeated_fraction": 0.23}, "23% of the 3-grams"),
    "bad_ending": ({"rollout/bad_ending_fraction": 0.36}, "36% of the captions end badly, 5% at the start"),
    "zero_variance": ({"reward/flat_fraction": 0.95}, "scores of 95% of the groups are all equal"),
}


def rails(**changes: Any) -> GuardRails:
    actions = {f"{name}_action": "stop" for name in (*BROKEN, "critic", "divergence")}
    return GuardRails(GuardSpec.model_validate({**actions, **changes}))


@pytest.mark.parametrize("name", BROKEN)
def test_a_rail_fires_after_its_patience_and_forgets(name: str) -> None:
    numbers, text = BROKEN[name]
    found = rails()
    assert found.observe(HEALTHY) is None
    bad = {**HEALTHY, **numbers}
    assert [found.observe(bad), found.observe(bad)] == [None, None]
    assert found.observe(HEALTHY) is None
    assert [found.observe(bad), found.observe(bad)] == [None, None]
    reason = found.observe(bad)
    assert reason is not None
    assert text in reason


def test_shorter_completions_are_a_drift_too() -> None:
    found = rails(patience_iterations=1)
    found.observe(HEALTHY)
    assert "4.9 tokens" in (found.observe({**HEALTHY, "rollout/tokens": 4.9}) or "")


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("action", ["warn", "off"])
def test_a_warning_comes_once_a_spell(name: str, action: str, caplog: pytest.LogCaptureFixture) -> None:
    numbers, text = BROKEN[name]
    found = rails(**{f"{name}_action": action}, patience_iterations=2)
    with caplog.at_level(logging.WARNING, logger="vlm_rlhf.rl"):
        assert all(found.observe({**HEALTHY, **(numbers if i else {})}) is None for i in range(8))
    assert caplog.text.count(text) == (action == "warn")


def test_numbers_of_the_healthy_runs_pass() -> None:
    """The extremes of the measured runs: explained variance −0.02 to 0.26, 0.2 nats a token, length ±30 %."""
    found = rails()
    for step in range(40):
        low = step % 2
        numbers = {
            "reward/total": 0.3 + 0.02 * step, "kl/k1_nats": 0.05 * step, "rollout/tokens": 11.4 - 3.1 * low,
            "rollout/distinct_word_fraction": 0.11 - 0.024 * low, "rollout/repeated_fraction": 0.05 * low,
            "rollout/bad_ending_fraction": 0.1 * low, "value/explained_variance": -0.02 + 0.28 * low,
            "value/spread": 0.0 if step == 0 else 0.3, "reward/flat_fraction": 0.4 * low,
        }  # fmt: skip
        assert found.observe(numbers) is None
    assert found.observe_held_out({"cider": (0.0, 0.1), "vqa_accuracy": (0.1, 0.1)}) is None
    assert found.observe_held_out({"cider": (0.3, 0.1), "vqa_accuracy": (0.0, 0.1)}) is None


@pytest.mark.parametrize(
    ("explained", "spread", "text"),
    [(-0.6, 0.5, "explained variance is -0.60"), (0.0, 0.001, "same value"), (-0.4, 0.02, None)],
)
def test_a_dead_critic(explained: float, spread: float, text: str | None) -> None:
    found = rails()
    numbers = {**HEALTHY, "value/explained_variance": explained, "value/spread": spread}
    assert all(found.observe(numbers) is None for _ in range(CRITIC_WINDOW - 1))
    reason = found.observe(numbers)
    assert (reason is None) if text is None else (text in (reason or ""))


def test_a_run_without_a_critic_has_none_to_judge() -> None:
    found = rails()
    numbers = {name: value for name, value in HEALTHY.items() if not name.startswith("value/")}
    assert all(found.observe(numbers) is None for _ in range(2 * CRITIC_WINDOW))


@pytest.mark.parametrize(
    ("rewards", "fallen", "error", "fires"),
    [
        ((0.0, 1.0), 0.5, 0.05, True),  # the proxy rises, the metric falls
        ((1.0, 0.0), 0.5, 0.05, False),  # both fall: bad training, no gaming
        ((0.0, 1.0), 0.2, 0.05, False),  # a small fall
        ((0.0, 1.0), 0.5, 0.15, False),  # a fall within three standard errors
    ],
)
def test_divergence(rewards: tuple[float, float], fallen: float, error: float, fires: bool) -> None:
    found = rails()
    assert found.observe_held_out({"cider": (0.2, error)}) is None
    for reward in rewards:
        for _ in range(3):
            found.observe({**HEALTHY, "reward/total": reward})
    reason = found.observe_held_out({"cider": (0.2 - fallen, error)})
    assert (reason is not None) == fires
    if reason:
        assert "val/cider fell by 0.50 standard deviations" in reason


@pytest.mark.parametrize(("calibrated", "fires"), [((0.0, 1.0), True), ((1.0, 0.0), False)])
def test_divergence_is_judged_on_the_scale_that_stays(calibrated: tuple[float, float], fires: bool) -> None:
    """Normalised by group, the total is 0 at every iteration, up to rounding either way."""
    found = rails()
    found.observe_held_out({"cider": (0.2, 0.05)})
    for reward, total in zip(calibrated, (1e-9, -1e-9) if fires else (-1e-9, 1e-9), strict=True):
        for _ in range(3):
            found.observe({**HEALTHY, "reward/total": total, "reward/total/calibrated": reward})
    assert (found.observe_held_out({"cider": (-0.3, 0.05)}) is not None) == fires


def test_memory_survives_a_checkpoint() -> None:
    whole, first = rails(), rails()
    bad = {**HEALTHY, "kl/k1_nats": 30.0}
    for found in (whole, first):
        found.observe_held_out({"cider": (0.2, 0.01)})
        found.observe(HEALTHY)
        found.observe(bad)
        found.observe(bad)
    second = rails()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.state_dict() == whole.state_dict()
    assert second.observe(bad) == whole.observe(bad) is not None


# ---- in real runs ------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(tmp_path: Path) -> list[dict[str, Any]]:
    """A reward that is gamed by one letter over and over, and a metric that sees it and is not trained on."""
    file = tmp_path / "proxy.py"
    file.write_text(
        "def letters(completions, **columns):\n    return [c[0]['content'].count('e') for c in completions]\n"
        "def variety(completions, **columns):\n"
        "    return [len(set(c[0]['content'])) / max(1, len(c[0]['content'])) for c in completions]\n"
    )
    return [{"term": f"{file}:letters"}, {"term": f"{file}:variety", "weight": 0.0}]


def over_optimised(make_trainer: Trainers, terms: list[dict[str, Any]], **changes: Any) -> PpoTrainer:
    """A trainer with a learning rate that moves the policy far, evaluated on sampled validation rows."""
    trainers: list[PpoTrainer] = []

    def evaluate(vlm: LoadedVlm) -> HeldOut:
        trainer = trainers[0]
        rows = trainer.val_rows * 4
        _, completions = trainer.worker.sample(rows, seed=5, samples=1)
        return held_out_scores(trainer.reward, reward_batch(rows, completions))

    settings = {
        "ppo__iterations": 16,
        "rollout__prompts_per_iteration": 32,
        "optimizer__learning_rate": 1e-2,
        "run__eval_every_steps": 4,
        "run__log_every_steps": 100,
        "guards__calibration_samples": 64,
    }
    trainers.append(make_trainer(rewards=terms, evaluate=evaluate, **{**settings, **changes}))
    return trainers[0]


def test_ppo_without_kl_is_caught(make_trainer: Trainers, proxy: list[dict[str, Any]]) -> None:
    trainer = over_optimised(make_trainer, proxy, kl__coefficient=0.0, guards__kl_action="stop")
    with pytest.raises(RunFailed, match="nats a token") as caught:
        trainer.train()
    step = trainer.iteration
    assert (trainer.run.path / f"checkpoint-{step}" / "rl_state.json").is_file()
    assert (trainer.run.path / "best" / "adapter_model.safetensors").is_file()
    assert "look at" in (caught.value.remedy or "")


def test_a_gamed_proxy_is_caught_by_the_metric_it_does_not_see(
    make_trainer: Trainers, proxy: list[dict[str, Any]]
) -> None:
    trainer = over_optimised(make_trainer, proxy, kl__coefficient=0.0, guards__divergence_action="stop")
    with pytest.raises(RunFailed, match=r"val/variety fell by .* the reward is being gamed"):
        trainer.train()


def test_a_healthy_run_is_left_alone(
    make_trainer: Trainers, proxy: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """With the penalty and a usual learning rate the reward rises too, and every rail may stop the run."""
    stops = {f"guards__{name}_action": "stop" for name in (*BROKEN, "critic", "divergence")}
    trainer = over_optimised(
        make_trainer,
        proxy,
        kl__coefficient=0.1,
        optimizer__learning_rate=1e-3,
        run__log_every_steps=1,
        **stops,
    )
    trainer.train()
    lines = [line for line in trainer.run.metrics.read() if "reward/letters" in line]
    assert sum(line["reward/letters"] for line in lines[-4:]) > sum(
        line["reward/letters"] for line in lines[:4]
    )
    assert trainer.run.final.is_dir()
