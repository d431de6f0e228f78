"""Percentile bootstrap intervals for corpus scores, and paired differences between two systems.

A *statistic* maps indices of units (images, or images with all their questions) to named corpus scores, so
that corpus metrics such as BLEU are recomputed on each resample from cached sufficient statistics instead of
being averaged. Every call with the same ``units`` and ``seed`` draws the same resamples: draws of two systems
are paired by construction. Method: Efron and Tibshirani 1993, chapter 13; for paired systems Koehn 2004.
Document frequencies of CIDEr-D stay those of the whole test split in every resample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Draws",
    "Indices",
    "Interval",
    "Statistic",
    "bootstrap",
    "interval",
    "means",
    "p_value",
    "paired_difference",
    "paired_intervals",
    "pooled_mean",
]

Indices = NDArray[np.int64]
Statistic = Callable[[Indices], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A value measured on all units and its percentile interval, in the units of the score."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """``{"mean", "low", "high"}`` as written to ``summary.json``."""
        return {"mean": self.mean, "low": self.low, "high": self.high}

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True, slots=True)
class Draws:
    """Scores of one system: on all units (``point``) and on each resample (``draws``, name → (R,))."""

    point: dict[str, float]
    draws: dict[str, NDArray[np.float64]]


def resampled_indices(units: int, resamples: int, seed: int) -> Iterator[Indices]:
    """``resamples`` arrays of ``units`` indices drawn with replacement; a function of the arguments alone."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield generator.integers(units, size=units)


def bootstrap(statistic: Statistic, *, units: int, resamples: int = 1000, seed: int = 0) -> Draws:
    """Evaluate ``statistic`` on all units and on ``resamples`` resamples.

    Raises:
        ValueError: if there is no unit.
    """
    if units < 1:
        raise ValueError("a bootstrap needs at least one unit")
    point = dict(statistic(np.arange(units)))
    draws = {name: np.empty(resamples) for name in point}
    for position, indices in enumerate(resampled_indices(units, resamples, seed)):
        for name, value in statistic(indices).items():
            draws[name][position] = value
    return Draws(point=point, draws=draws)


def interval(scores: Draws, name: str, *, level: float = 0.95) -> Interval:
    """The interval of one score of one system."""
    return _percentiles(scores.point[name], scores.draws[name], level)


def paired_difference(a: Draws, b: Draws, name: str, *, level: float = 0.95) -> Interval:
    """The interval of ``a - b`` for one score; both were drawn with the same units, resamples and seed.

    Raises:
        ValueError: if the numbers of resamples differ, so the draws cannot be pairs.
    """
    if a.draws[name].shape != b.draws[name].shape:
        raise ValueError(f"draws of {name} are not pairs: {a.draws[name].shape} and {b.draws[name].shape}")
    return _percentiles(a.point[name] - b.point[name], a.draws[name] - b.draws[name], level)


def p_value(a: Draws, b: Draws, name: str) -> float:
    """Two-sided p of "no difference": twice the smaller share of resamples with a difference on one side of zero.

    Resamples that tie count on both sides, and one is added to either count, so that no number of resamples makes
    it 0.
    """
    differences = a.draws[name] - b.draws[name]
    below, above = int((differences <= 0).sum()), int((differences >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (differences.size + 1))


def paired_intervals(
    a: Statistic, b: Statistic, *, units: int, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """The interval of ``a - b`` for every score that both statistics give."""
    first = bootstrap(a, units=units, resamples=resamples, seed=seed)
    second = bootstrap(b, units=units, resamples=resamples, seed=seed)
    return {
        name: paired_difference(first, second, name, level=level)
        for name in first.point
        if name in second.point
    }


def means(columns: Mapping[str, Sequence[float] | NDArray[np.float64]]) -> Statistic:
    """A statistic of plain means: each column holds one value a unit, (N,)."""
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}

    def statistic(indices: Indices) -> dict[str, float]:
        return {name: float(values[indices].mean()) for name, values in arrays.items()}

    return statistic


def pooled_mean(name: str, groups: Sequence[Sequence[float]]) -> Statistic:
    """The mean over all values of the resampled groups, e.g. over the questions of the resampled images."""
    sums = np.array([float(np.sum(group)) for group in groups])
    counts = np.array([len(group) for group in groups], dtype=np.float64)

    def statistic(indices: Indices) -> dict[str, float]:
        return {name: float(sums[indices].sum() / counts[indices].sum())}

    return statistic


def _percentiles(point: float, draws: NDArray[np.float64], level: float) -> Interval:
    tail = 100.0 * (1.0 - level) / 2.0
    low, high = np.percentile(draws, [tail, 100.0 - tail])
    return Interval(mean=float(point), low=float(low), high=float(high))
