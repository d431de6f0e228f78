"""Guard rails: blindness, failed and constant rewards, a wrong start."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from toolkit.config.schema import GuardSpec
from toolkit.errors import RecipeError, RunFailed
from toolkit.models.encoding import EncodedPrompt
from toolkit.models.roles import role_parameters
from toolkit.records import PromptRow
from toolkit.rl import guards
from toolkit.rl.trainer import PpoTrainer

from .conftest import FAMILIES

Trainers = Callable[..., PpoTrainer]


def test_vision_gap_is_the_difference_another_picture_makes(make_trainer: Trainers) -> None:
    trainer = make_trainer()
    rollout = trainer.worker.collect(trainer.rows[:6], seed=1)
    total, rows = guards.vision_gap(trainer.worker, rollout)
    assert rows == 6
    shifted = [*rollout.prompts[1:], rollout.prompts[0]]
    other = trainer.worker.score(rollout.rows, shifted, rollout.completions)
    expected = float((rollout.logprobs - other.logprobs).sum())
    assert total == pytest.approx(expected, abs=1e-4)
    assert total != 0.0


def test_vision_gap_of_a_blind_policy_is_zero(make_trainer: Trainers) -> None:
    """Equal pictures under different ids: the policy cannot see a difference."""
    trainer = make_trainer()
    rollout = trainer.worker.collect(trainer.rows[:4], seed=1)
    same = [
        replace(prompt, image_inputs=rollout.prompts[0].image_inputs, features=rollout.prompts[0].features)
        for prompt in rollout.prompts
    ]
    blind = trainer.worker.score(rollout.rows, same, rollout.completions)
    total, rows = guards.vision_gap(trainer.worker, blind)
    assert rows == 4
    assert total == pytest.approx(0.0, abs=1e-4)


def test_a_policy_that_is_shown_one_picture_has_no_gap_however_far_an_update_moves_it(
    make_trainer: Trainers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an update adds to the log-probabilities of its own completions is not taken for sight."""
    trainer = make_trainer(optimizer__learning_rate=2e-2, guards__vision_gap_action="stop")
    encoded = trainer.worker.encoded

    def blind(rows: Sequence[PromptRow]) -> list[EncodedPrompt]:
        prompts = encoded(rows)
        first = prompts[0]
        return [replace(p, image_inputs=first.image_inputs, features=first.features) for p in prompts]

    monkeypatch.setattr(trainer.worker, "encoded", blind)
    with pytest.raises(RunFailed, match="does not look at the image"):
        trainer.train()
    lines = [json.loads(line) for line in (trainer.run.path / "metrics.jsonl").read_text().splitlines()]
    gaps = [line["guard/vision_gap_nats"] for line in lines if "guard/vision_gap_nats" in line]
    assert gaps == pytest.approx([0.0], abs=1e-3)


def test_the_gap_is_measured_on_different_prompts(make_trainer: Trainers) -> None:
    trainer = make_trainer(rollout__samples_per_prompt=40, rollout__prompts_per_iteration=2)
    rollout = trainer.worker.collect(trainer.rows[:2], seed=1)
    assert len(rollout) == 80
    assert guards.vision_gap(trainer.worker, rollout)[1] == 2


def test_vision_gap_needs_two_pictures(make_trainer: Trainers) -> None:
    trainer = make_trainer()
    rollout = trainer.worker.collect([trainer.rows[0]] * 3, seed=1)
    assert guards.vision_gap(trainer.worker, rollout)[1] == 0


@pytest.mark.parametrize(
    ("gap", "action", "stops"),
    [
        (-0.1, "stop", True),
        (0.0, "stop", True),
        (0.1, "stop", False),
        (-0.1, "warn", False),
        (-0.1, "off", False),
    ],
)
def test_vision_gap_actions(gap: float, action: str, stops: bool, caplog: pytest.LogCaptureFixture) -> None:
    spec = GuardSpec.model_validate({"vision_gap_action": action})
    assert (guards.check_vision_gap(gap, spec) is not None) == stops
    assert ("does not look" in caplog.text) == (action == "warn")
    assert guards.check_vision_gap(float("nan"), spec) is None


def test_a_blind_policy_stops_the_run_with_a_checkpoint(make_trainer: Trainers) -> None:
    trainer = make_trainer(guards__vision_gap_action="stop", guards__vision_gap_min_nats=1e6)
    with pytest.raises(RunFailed, match="does not look at the image"):
        trainer.train()
    assert (trainer.run.path / "checkpoint-1" / "rl_state.json").is_file()
    assert not trainer.run.final.exists()


def test_failed_rewards_stop_the_run_with_a_checkpoint(make_trainer: Trainers, tmp_path: Path) -> None:
    file = tmp_path / "flaky.py"
    file.write_text(
        "calls = []\n"
        "def flaky(completions, **columns):\n"
        "    calls.append(1)\n"
        "    good = [float(i) for i in range(len(completions))]\n"
        "    return good if len(calls) < 3 else [float('nan'), *good[1:]]\n"
    )
    terms = [
        {"term": f"{file}:flaky", "normalise": "running"},
        {"term": "length", "options": {"max_tokens": 3}, "normalise": "running"},
    ]
    trainer = make_trainer(rewards=terms, guards__failed_fraction_max=0.1)
    with pytest.raises(RunFailed, match=r"12\.5% of the rewards failed, .* \(flaky on 12\.5%\)") as caught:
        trainer.train()
    assert "--resume does the iteration again" in (caught.value.remedy or "")
    assert (trainer.run.path / "checkpoint-1").is_dir()
    assert [line["reward/failed_fraction"] for line in trainer.run.metrics.read()] == [0.0]
    trainer.run.release()
    file.write_text(
        "def flaky(completions, **columns):\n    return [float(i) for i in range(len(completions))]\n"
    )
    resumed = make_trainer(rewards=terms, guards__failed_fraction_max=0.1, resume=True)
    resumed.train(resume=True)
    assert [line["step"] for line in resumed.run.metrics.read()] == [1, 2, 3]
    whole = make_trainer(name="whole", rewards=terms, guards__failed_fraction_max=0.1)
    whole.train()  # with no failure: the one iteration that failed left no trace in the running statistics
    assert whole.reward.state_dict() == resumed.reward.state_dict()
    weights = [dict(role_parameters(trainer.vlm.model, "default")) for trainer in (whole, resumed)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_constant_reward_stops_the_run_before_training(make_trainer: Trainers, tmp_path: Path) -> None:
    file = tmp_path / "flat.py"
    file.write_text("def flat(completions, **columns):\n    return [0.0] * len(completions)\n")
    trainer = make_trainer(rewards=[{"term": f"{file}:flat"}])
    with pytest.raises(RunFailed, match=r"flat is 0\.000 on all 8 caption samples"):
        trainer.train()
    assert not trainer.run.metrics.path.exists()


def test_a_reference_that_differs_is_noticed(make_trainer: Trainers) -> None:
    trainer = make_trainer()
    with torch.no_grad():
        for _, parameter in role_parameters(trainer.vlm.model, "ref"):
            parameter.mul_(1.5)
    with pytest.raises(RunFailed, match="policy and reference differ"):
        trainer.train()


def test_a_wrong_first_update_is_noticed(make_trainer: Trainers) -> None:
    vlm = make_trainer().vlm
    guards.check_first_update(vlm, 1e-6, missing=[])
    with pytest.raises(RunFailed, match="ratio does not start at 1"):
        guards.check_first_update(vlm, 0.5, missing=[])
    with pytest.raises(RunFailed, match="ratio does not start at 1"):
        guards.check_first_update(vlm, float("nan"), missing=[])
    with pytest.raises(RunFailed, match="2 trainable parameters got no gradient"):
        guards.check_first_update(vlm, 0.0, missing=["a", "b"])


def test_sizes_that_cannot_be_split_are_refused(make_trainer: Trainers) -> None:
    with pytest.raises(RecipeError, match="must divide by minibatches"):
        make_trainer(rollout__prompts_per_iteration=9, ppo__minibatches=2)


@pytest.mark.parametrize("family", FAMILIES)
def test_swapping_the_pictures_of_two_rows_changes_what_is_said(make_trainer: Trainers, family: str) -> None:
    """Log-probabilities and values of every forward depend on the row's own picture."""
    trainer = make_trainer(family=family)
    with torch.no_grad():
        trainer.engine.module.value_head.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
    rollout = trainer.worker.collect(trainer.rows[:2], seed=1)
    swapped = trainer.worker.score(rollout.rows, rollout.prompts[::-1], rollout.completions)
    for name in ("logprobs", "reference", "values"):
        difference = (getattr(rollout, name) - getattr(swapped, name)).abs().sum(1).numpy()
        assert np.all(difference > 1e-4), name
