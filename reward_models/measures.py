"""How well scores agree with preferences: pure functions of numpy arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "accuracy",
    "accuracy_by",
    "calibration_error",
    "fitted_temperature",
    "length_difference_bins",
    "pair_measures",
    "reliability",
]

Floats = NDArray[np.float64]


def accuracy(chosen: Floats, rejected: Floats) -> float:
    """Share of pairs whose chosen score is higher, in [0, 1]; equal scores count half. NaN for no pairs."""
    if len(chosen) == 0:
        return math.nan
    return float(np.mean((chosen > rejected) + 0.5 * (chosen == rejected)))


def accuracy_by(chosen: Floats, rejected: Floats, labels: Sequence[str]) -> dict[str, tuple[float, int]]:
    """``{label: (accuracy, number of pairs)}``, in alphabetical order."""
    names = np.asarray(labels)
    found = {}
    for label in sorted(set(labels)):
        here = names == label
        found[label] = (accuracy(chosen[here], rejected[here]), int(here.sum()))
    return found


def pair_measures(chosen: Floats, rejected: Floats, sources: Sequence[str]) -> dict[str, float]:
    """``accuracy``, ``margin`` (mean difference), and with several sources ``accuracy_<source>`` for each."""
    measured = {"accuracy": accuracy(chosen, rejected), "margin": float(np.mean(chosen - rejected))}
    by_source = accuracy_by(chosen, rejected, sources)
    if len(by_source) > 1:
        measured |= {f"accuracy_{name}": value for name, (value, _) in by_source.items()}
    return measured


def length_difference_bins(chosen: Sequence[str], rejected: Sequence[str]) -> list[str]:
    """For each pair whether the chosen text has more words than the rejected one: ``longer shorter equal``."""
    words = [(len(good.split()), len(bad.split())) for good, bad in zip(chosen, rejected, strict=True)]
    return ["longer" if a > b else "shorter" if a < b else "equal" for a, b in words]


def fitted_temperature(chosen: Floats, rejected: Floats) -> float:
    """The temperature T > 0 that makes sigmoid(difference / T) most likely (Guo et al. 2017).

    Found by golden-section search on the negative log-likelihood over log T in [log 0.01, log 100].
    """
    difference = chosen - rejected

    def loss(log_temperature: float) -> float:
        return float(np.mean(np.logaddexp(0.0, -difference / math.exp(log_temperature))))

    low, high = math.log(0.01), math.log(100.0)
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    for _ in range(80):
        first, second = high - ratio * (high - low), low + ratio * (high - low)
        if loss(first) < loss(second):
            high = second
        else:
            low = first
    return math.exp((low + high) / 2.0)


def reliability(
    chosen: Floats, rejected: Floats, *, temperature: float = 1.0, bins: int = 10, seed: int = 0
) -> list[dict[str, float]]:
    """Points of a reliability plot: predicted against observed preference in bins of equal mass.

    A pair's orientation is drawn at random first: otherwise every label is "the first one is better" and a
    model that always says so looks calibrated.

    Returns:
        For each bin ``predicted`` and ``observed`` probability that the first is better, and ``pairs``.
    """
    flipped = np.random.default_rng(seed).random(len(chosen)) < 0.5
    difference = np.where(flipped, rejected - chosen, chosen - rejected)
    predicted = 1.0 / (1.0 + np.exp(-np.clip(difference / temperature, -700, 700)))
    observed = (~flipped).astype(np.float64)
    order = np.argsort(predicted, kind="stable")
    return [
        {
            "predicted": float(predicted[part].mean()),
            "observed": float(observed[part].mean()),
            "pairs": float(len(part)),
        }
        for part in np.array_split(order, min(bins, max(len(order), 1)))
        if len(part)
    ]


def calibration_error(points: Sequence[dict[str, float]]) -> float:
    """Expected calibration error of ``reliability`` points: mean |predicted − observed|, weighted by pairs."""
    total = sum(point["pairs"] for point in points)
    if total == 0:
        return math.nan
    return sum(abs(p["predicted"] - p["observed"]) * p["pairs"] for p in points) / total
