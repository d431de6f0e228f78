"""The rail on the chosen texts fires on what it is for; tests/e2e/test_over_optimisation.py sees it in real runs."""

from __future__ import annotations

import logging

import pytest
from transformers import TrainerControl, TrainerState

from toolkit.config.schema import PreferenceGuardSpec
from toolkit.training.preference_rails import PreferenceRails

BETA = 0.1
STOPS = PreferenceGuardSpec(chosen_action="stop")


def line(chosen: float, rejected: float, *, reference: tuple[float, float] = (-5.0, -8.0), prefix: str = ""):
    """What TRL logs when the texts' log-probabilities moved from ``reference`` to these."""
    rewards = BETA * (chosen - reference[0]), BETA * (rejected - reference[1])
    return {
        f"{prefix}logps/chosen": chosen,
        f"{prefix}logps/rejected": rejected,
        f"{prefix}rewards/chosen": rewards[0],
        f"{prefix}rewards/rejected": rewards[1],
        f"{prefix}rewards/margins": rewards[0] - rewards[1],
    }


def observe(lines, spec=STOPS, *, history=()):
    """The rails after ``lines``, and how many of them it took to stop."""
    rails, control = PreferenceRails(spec, beta=BETA), TrainerControl()
    state = TrainerState(log_history=list(history))
    rails.on_train_begin(None, state, control)
    for number, logs in enumerate(lines, start=1):
        state.global_step = number
        rails.on_log(None, state, control, logs=logs)
        if control.should_training_stop:
            assert control.should_save
            return rails, number
    return rails, None


def test_numbers_of_the_healthy_runs_pass() -> None:
    """The extremes of three scenes runs: the chosen texts lost 0.35 nats at most, and won 0.14."""
    lines = [line(-5.0 - 0.35 * (step % 2) + 0.14 * (1 - step % 2), -8.8) for step in range(20)]
    lines += [line(*numbers, prefix="eval_") for numbers in ((-5.3, -8.8), (-4.9, -8.9))]
    assert observe(lines)[1] is None


def test_chosen_texts_that_become_unlikely_stop_the_run_after_its_patience() -> None:
    bad, good = line(-7.6, -10.6), line(-7.4, -10.4)
    rails, steps = observe([bad, good, bad, bad])
    assert steps == 4
    assert (
        "on the training pairs the chosen texts cost 7.6 nats each, 5.0 under the reference" in rails.reason
    )


def test_validation_pairs_are_believed_at_once() -> None:
    rails, steps = observe([line(-7.6, -10.6, prefix="eval_")])
    assert steps == 1
    assert "on the validation pairs" in rails.reason


def test_texts_that_are_next_to_certain_are_judged_in_nats() -> None:
    nearly = (-0.01, -0.02)
    assert observe([line(-0.4, -0.9, reference=nearly)] * 3)[1] is None
    assert observe([line(-0.6, -0.7, reference=nearly)] * 3)[1] == 2


@pytest.mark.parametrize("action", ["warn", "off"])
def test_a_warning_comes_once_a_spell(action: str, caplog: pytest.LogCaptureFixture) -> None:
    spec = PreferenceGuardSpec(chosen_action=action)
    with caplog.at_level(logging.WARNING, logger="vlm_rlhf.training"):
        assert observe([line(-9.0, -40.0)] * 6, spec)[1] is None
    assert caplog.text.count("the chosen texts cost") == (action == "warn")


def test_a_resumed_run_remembers() -> None:
    assert observe([line(-7.6, -10.6)], history=[line(-7.6, -10.6)])[1] == 1
    assert observe([{"loss": 0.5}, {"eval_loss": 0.6}])[1] is None
