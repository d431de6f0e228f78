"""What a reward model is worth: agreement with preferences, by source and length, and whether it looks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward_models.invariance import invariance
from reward_models.measures import (
    accuracy,
    accuracy_by,
    calibration_error,
    fitted_temperature,
    length_difference_bins,
    reliability,
)
from reward_models.scorer import LearnedReward
from toolkit.errors import DataError, RunFailed
from toolkit.records import ImageSource, PreferenceRow
from toolkit.runs.metrics import json_safe

__all__ = ["EVALUATION_FILE", "PairReport", "evaluate_pairs", "score_rows"]

EVALUATION_FILE = "reward_evaluation.json"
_INVARIANCE_ROWS = 16
_FAILED_SHARE_MAX = 0.01


@dataclass(frozen=True, kw_only=True)
class PairReport:
    """Agreement of a reward model with preference pairs; shares lie in [0, 1], scores are log-odds.

    Attributes:
        n: pairs that were scored.
        failed: pairs left out because a score was no finite number.
        accuracy: share ranked right; equal scores count half.
        margin: mean of chosen − rejected.
        by_source: ``{source: (accuracy, pairs)}``.
        by_length: the same for pairs whose chosen text is ``longer``, ``shorter`` or ``equal`` in words.
        length_only_accuracy: accuracy of "the longer text is better" or its opposite, whichever is higher.
        blanked_accuracy: accuracy with grey pictures; a model that looks falls towards 0.5.
        swapped_accuracy: accuracy with the pictures of another pair.
        swap_gap: mean difference of scores of chosen texts with their own and with another picture.
        temperature: fitted on half of the pairs.
        ece: expected calibration error on the other half, at that temperature.
        reliability: points of the reliability plot of that half.
        invariance: largest change of a score with padding, place in the batch and packing
            (``reward_models.invariance``), on the first rows; empty for ensembles.
    """

    n: int
    failed: int
    accuracy: float
    margin: float
    by_source: dict[str, tuple[float, int]]
    by_length: dict[str, tuple[float, int]]
    length_only_accuracy: float
    blanked_accuracy: float
    swapped_accuracy: float
    swap_gap: float
    temperature: float
    ece: float
    reliability: list[dict[str, float]] = field(default_factory=list)
    invariance: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values; NaN becomes null."""
        safe: dict[str, Any] = json_safe(dataclasses.asdict(self))
        return safe

    def summary(self) -> str:
        """One line for logs."""
        sources = ", ".join(f"{name} {value:.3f}" for name, (value, _) in self.by_source.items())
        return (
            f"accuracy {self.accuracy:.3f} on {self.n} pairs ({sources}); "
            f"blanked pictures {self.blanked_accuracy:.3f}, length alone {self.length_only_accuracy:.3f}"
        )


def score_rows(
    reward: LearnedReward,
    rows: Sequence[PreferenceRow],
    *,
    images: Sequence[tuple[ImageSource, ...]] | None = None,
    label: str | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores (N,) of the chosen and of the rejected texts.

    Args:
        reward: what scores.
        rows: N pairs.
        images: pictures in place of the rows' own.
        label: shows progress under this name.
    """
    pictures = [row.images for row in rows] if images is None else list(images)
    prompts = [row.prompt for row in rows]
    texts = [*(row.chosen for row in rows), *(row.rejected for row in rows)]
    scores = reward.score([*prompts, *prompts], [*pictures, *pictures], texts, label=label)
    return scores[: len(rows)], scores[len(rows) :]


def evaluate_pairs(reward: LearnedReward, rows: Sequence[PreferenceRow]) -> PairReport:
    """Measure a reward model on ``rows``; four passes over them (plain, grey pictures, swapped pictures).

    Raises:
        DataError: no rows.
        RunFailed: more than 1 % of the scores are no finite numbers.
    """
    if not rows:
        raise DataError("preference pairs", "there are none; a reward model is measured on at least one pair")
    chosen, rejected = score_rows(reward, rows)
    finite = np.isfinite(chosen) & np.isfinite(rejected)
    failed = int((~finite).sum())
    if failed > _FAILED_SHARE_MAX * len(rows):
        raise RunFailed(
            f"{failed} of {len(rows)} pairs have a score that is no finite number",
            remedy="the weights are damaged or diverged: train again with a lower learning rate",
        )
    kept = [row for row, ok in zip(rows, finite, strict=True) if ok]
    chosen, rejected = chosen[finite], rejected[finite]
    lengths = length_difference_bins([row.chosen for row in kept], [row.rejected for row in kept])
    longer = np.array([{"longer": 1.0, "shorter": 0.0, "equal": 0.5}[name] for name in lengths])
    return PairReport(
        n=len(kept),
        failed=failed,
        accuracy=accuracy(chosen, rejected),
        margin=float(np.mean(chosen - rejected)),
        by_source=accuracy_by(chosen, rejected, [row.source for row in kept]),
        by_length=accuracy_by(chosen, rejected, lengths),
        length_only_accuracy=float(max(longer.mean(), 1.0 - longer.mean())),
        **_looking(reward, kept, chosen),
        **_calibration(chosen, rejected),
        invariance=invariance(reward, kept[:_INVARIANCE_ROWS]) if type(reward) is LearnedReward else {},
    )


def _looking(
    reward: LearnedReward, rows: Sequence[PreferenceRow], own: NDArray[np.float64]
) -> dict[str, Any]:
    """Accuracy without the right picture, and what the right picture is worth."""
    blanked = accuracy(*score_rows(reward.blanked(), rows))
    others = _pictures_of_others(rows)
    if others is None:
        return {"blanked_accuracy": blanked, "swapped_accuracy": math.nan, "swap_gap": math.nan}
    chosen, rejected = score_rows(reward, rows, images=others)
    return {
        "blanked_accuracy": blanked,
        "swapped_accuracy": accuracy(chosen, rejected),
        "swap_gap": float(np.mean(own - chosen)),
    }


def _pictures_of_others(rows: Sequence[PreferenceRow], seed: int = 0) -> list[tuple[ImageSource, ...]] | None:
    """For each row the pictures of a random other row with as many of them; None where a row has no such other."""
    rng = np.random.default_rng(seed)
    swapped = []
    for row in rows:
        order = rng.permutation(len(rows))
        candidates = (rows[index].images for index in order)
        other = next((c for c in candidates if c != row.images and len(c) == len(row.images)), None)
        if other is None:
            return None
        swapped.append(other)
    return swapped


def _calibration(chosen: NDArray[np.float64], rejected: NDArray[np.float64]) -> dict[str, Any]:
    """Temperature from the even pairs; calibration error of the odd ones at that temperature."""
    if len(chosen) < 2:
        return {"temperature": math.nan, "ece": math.nan, "reliability": []}
    temperature = fitted_temperature(chosen[::2], rejected[::2])
    points = reliability(chosen[1::2], rejected[1::2], temperature=temperature)
    return {"temperature": temperature, "ece": calibration_error(points), "reliability": points}
