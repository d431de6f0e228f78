"""Blocks of the guard rails: what they watch, from where on they speak, and what they do then."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from toolkit.config.blocks import Count, Fraction, Positive, Strict

__all__ = ["GuardAction", "GuardSpec", "PreferenceGuardSpec"]

GuardAction = Literal["off", "warn", "stop"]


class GuardSpec(Strict):
    """Guard rails of an RL run; why each threshold is what it is: docs/ppo.md.

    ``stop`` writes a checkpoint and ends the run, ``warn`` says so once, ``off`` looks away. A drift is measured
    against the first iteration and has to last ``patience_iterations``.
    """

    vision_gap_min_nats: float | None = 0.02
    vision_gap_action: GuardAction = "warn"
    calibration_samples: Count = 128
    failed_fraction_max: Fraction = 0.01
    patience_iterations: Count = 3
    divergence_action: GuardAction = "warn"
    divergence_drop_stds: Positive = 0.25
    kl_action: GuardAction = "warn"
    kl_max_nats_per_token: Positive = 1.0
    length_action: GuardAction = "warn"
    length_ratio_max: Annotated[float, Field(gt=1.0)] = 2.0
    vocabulary_action: GuardAction = "warn"
    vocabulary_ratio_min: Fraction = 0.5
    repetition_action: GuardAction = "warn"
    repetition_rise_max: Fraction = 0.2
    bad_ending_action: GuardAction = "warn"
    bad_ending_rise_max: Fraction = 0.3
    critic_action: GuardAction = "warn"
    explained_variance_min: float = -0.5
    zero_variance_action: GuardAction = "warn"
    zero_variance_fraction_max: Fraction = 0.9


class PreferenceGuardSpec(Strict):
    """Guard rail of the preference stage; why the threshold is what it is: docs/ppo.md.

    ``chosen_cost_ratio_max`` bounds the negative log-probability of the chosen texts over the reference's; on training
    pairs it has to be passed in ``patience_logs`` log lines in a row.
    """

    chosen_action: GuardAction = "warn"
    chosen_cost_ratio_max: Annotated[float, Field(gt=1.0)] = 1.5
    patience_logs: Count = 2
