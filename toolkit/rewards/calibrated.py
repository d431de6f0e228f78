"""Scores on the scale of the starting policy's samples, which does not move during a run.

Normalised by group or by running statistics a reward's mean stays near 0 however good the completions become; on this
scale it can be seen to rise, and training and held-out completions compare.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from toolkit.rewards.base import FloatArray, RewardBatch, RewardOutput
from toolkit.rewards.normalisation import Moments

if TYPE_CHECKING:
    from toolkit.rewards.composite import CompositeTerm

__all__ = ["Calibration", "calibrated_total", "standardised", "verdict"]

logger = logging.getLogger("vlm_rlhf.rewards")

Calibration = Mapping[tuple[str, str], Moments]
"""Statistics by term and task."""

FEWEST_FOR_A_VERDICT = 8


def standardised(name: str, output: RewardOutput, batch: RewardBatch, calibration: Calibration) -> FloatArray:
    """A term's scores ``(B,)`` by the calibration of each row's task; NaN where it failed or was not calibrated."""
    values = np.full(len(batch), np.nan, dtype=np.float64)
    tasks = np.asarray([row.task for row in batch.rows])
    for task in sorted(set(tasks[output.applies].tolist())):
        moments = calibration.get((name, task))
        if moments is not None:
            members = output.applies & (tasks == task)
            values[members] = moments.standardise(output.scores[members])
    return values


def calibrated_total(
    terms: Sequence[CompositeTerm],
    outputs: Mapping[str, RewardOutput],
    batch: RewardBatch,
    calibration: Calibration,
) -> FloatArray | None:
    """The weighted sum ``(B,)`` by which policies of a run are compared; None without any calibration.

    A term enters with its full weight (no schedule, no clipping), standardised, or raw where the recipe does not
    normalise it; one of weight 0, failed or not, does not. NaN in rows where a term failed or was not calibrated for
    their task. Whether there is a sum never depends on the batch: processes exchange its mean.
    """
    if not calibration:
        return None
    total = np.zeros(len(batch), dtype=np.float64)
    for term in terms:
        if term.spec.weight == 0.0:
            continue
        output = outputs[term.name]
        raw = term.spec.normalise == "none"
        scores = output.scores if raw else standardised(term.name, output, batch, calibration)
        total += term.spec.weight * np.where(output.applies, scores, 0.0)
    return total


def verdict(term: CompositeTerm, task: str, samples: int, moments: Moments) -> list[tuple[str, str]]:
    """What is wrong with a term on one task's calibration samples, if anything, and what to do about it."""
    if moments.count == 0:
        what = f"{term.name} failed on all {samples} {task} samples"
        return [
            (what, f"look at what {term.name} answers (a service that is down, a function that returns NaN)")
        ]
    if not moments.constant or term.reward.may_be_constant:
        return []
    text = (
        f"{term.name} is {moments.mean:.3f} on all {int(moments.count)} {task} samples of the starting policy"
    )
    if term.spec.weight == 0.0:
        logger.warning("%s; it weighs 0 and is only watched", text)
    elif moments.count >= FEWEST_FOR_A_VERDICT:
        return [(text, "train the SFT stage longer, shorten max_new_tokens, or take the term out")]
    else:
        logger.warning("%s; too few samples to judge", text)
    return []
