"""What a composite reward says about held-out completions, on a scale that does not move during a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from toolkit.rewards.base import FloatArray, RewardBatch, RewardOutput
from toolkit.rewards.composite import CompositeReward, CompositeTerm

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
    """Mean raw score of every term, and ``score``: the weighted sum by which policies of a run are compared.

    In ``score`` a term enters with its full weight (no schedule, no clipping), standardised by its mean and
    deviation at the calibration, or raw where the recipe does not normalise it. Terms of weight 0 are measured all
    the same: that is how a metric is watched that nothing is trained on. Without a calibration (a checkpoint of an
    earlier version) there is no ``score`` and nothing standardised.
    """
    numbers: dict[str, float] = {}
    standardised: dict[str, tuple[float, float]] = {}
    total, complete = np.zeros(len(batch), dtype=np.float64), True
    for term in reward.terms:
        output = reward.raw(term, batch)
        finite = output.scores[np.isfinite(output.scores)]
        numbers[term.name] = float(finite.mean()) if finite.size else float("nan")
        scaled = _standardised(reward, term, output, batch)
        if scaled is None:
            complete = False
            continue
        total += term.spec.weight * np.where(
            output.applies, output.scores if term.spec.normalise == "none" else scaled, 0.0
        )
        kept = scaled[np.isfinite(scaled)]
        if kept.size > 1 and not term.reward.may_be_constant:
            standardised[term.name] = float(kept.mean()), float(kept.std(ddof=1) / np.sqrt(kept.size))
    scored = total[np.isfinite(total)]
    if complete and scored.size:
        numbers["score"] = float(scored.mean())
    return HeldOut(numbers, standardised)


def _standardised(
    reward: CompositeReward, term: CompositeTerm, output: RewardOutput, batch: RewardBatch
) -> FloatArray | None:
    """The term's scores by the calibration of each row's task; None where a task was not calibrated."""
    values = np.full(len(batch), np.nan, dtype=np.float64)
    tasks = np.asarray([row.task for row in batch.rows])
    for task in sorted(set(tasks[output.applies].tolist())):
        moments = reward.calibration.get((term.name, task))
        if moments is None:
            return None
        members = output.applies & (tasks == task)
        values[members] = moments.standardise(output.scores[members])
    return values
