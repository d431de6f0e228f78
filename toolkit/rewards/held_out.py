"""What a composite reward says about held-out completions, on a scale that does not move during a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from toolkit.rewards.base import FloatArray, RewardBatch
from toolkit.rewards.calibrated import calibrated_total, standardised
from toolkit.rewards.composite import CompositeReward

__all__ = ["HeldOut", "held_out_scores"]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Numbers of one held-out evaluation.

    Attributes:
        numbers: what is logged under ``val/``.
        standardised: term → mean and its standard error, in standard deviations of the starting policy's samples.
            Penalties are not among them: 0 is all they can reach.
    """

    numbers: Mapping[str, float]
    standardised: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def held_out_scores(reward: CompositeReward, batch: RewardBatch) -> HeldOut:
    """Mean raw score of every term, and ``score``: the mean of ``calibrated_total``, by which policies are compared.

    Terms of weight 0 are measured all the same: that is how a metric is watched that nothing is trained on. Without a
    calibration (a checkpoint of an earlier version) there is no ``score`` and nothing standardised.
    """
    numbers: dict[str, float] = {}
    spread: dict[str, tuple[float, float]] = {}
    outputs = {term.name: reward.raw(term, batch) for term in reward.terms}
    for term in reward.terms:
        finite = _finite(outputs[term.name].scores)
        numbers[term.name] = float(finite.mean()) if finite.size else float("nan")
        if term.reward.may_be_constant:
            continue
        scaled = standardised(term.name, outputs[term.name], batch, reward.calibration)
        if (kept := _finite(scaled)).size > 1:
            spread[term.name] = float(kept.mean()), float(kept.std(ddof=1) / np.sqrt(kept.size))
    total = calibrated_total(reward.terms, outputs, batch, reward.calibration)
    if total is not None and (scored := _finite(total)).size:
        numbers["score"] = float(scored.mean())
    return HeldOut(numbers, spread)


def _finite(values: FloatArray) -> FloatArray:
    return values[np.isfinite(values)]
