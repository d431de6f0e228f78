"""Mean and spread of a reward term, kept a task, so that terms of different scales can be added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.rewards.base import FloatArray

__all__ = ["SMALLEST_STD", "Moments", "normalise_in_groups"]

# Below these a spread is rounding noise: dividing by it would turn the noise into reward. The second is a share of the
# mean: a variance from sums of squares has an error of 1e-16 or so times the square of the mean.
SMALLEST_STD = 1e-8
SMALLEST_RELATIVE_STD = 1e-6


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations of the values seen so far (Chan et al. 1983, merging)."""

    count: float = 0.0
    mean: float = 0.0
    squared_deviations: float = 0.0

    @property
    def std(self) -> float:
        """Sample standard deviation (``count - 1``); 0.0 with fewer than two values."""
        if self.count < 2:
            return 0.0
        return float(np.sqrt(max(self.squared_deviations, 0.0) / (self.count - 1)))

    @property
    def constant(self) -> bool:
        """No spread beyond rounding noise."""
        return self.std <= max(SMALLEST_STD, SMALLEST_RELATIVE_STD * abs(self.mean))

    def merged(self, count: float, total: float, total_squares: float) -> Moments:
        """These moments with a batch added, the batch given as count, sum and sum of squares."""
        if count <= 0:
            return self
        mean = total / count
        deviations = max(total_squares - count * mean * mean, 0.0)
        both, delta = self.count + count, mean - self.mean
        return Moments(
            count=both,
            mean=self.mean + delta * count / both,
            squared_deviations=self.squared_deviations
            + deviations
            + delta * delta * self.count * count / both,
        )

    def standardise(self, values: FloatArray) -> FloatArray:
        """``(values - mean) / std``; without spread only the mean is taken off, so equal values become 0."""
        return (values - self.mean) / (1.0 if self.constant else self.std)

    def as_dict(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"count": self.count, "mean": self.mean, "squared_deviations": self.squared_deviations}


def normalise_in_groups(values: FloatArray, groups: Sequence[str]) -> FloatArray:
    """Standardise ``values (B,)`` within rows of one group name; NaN entries are left out and stay NaN.

    A group without spread, or of one row, becomes 0: there is nothing to prefer in it.
    """
    out = np.full(values.shape, np.nan, dtype=np.float64)
    names = np.asarray(groups)
    for name in dict.fromkeys(groups):
        members = (names == name) & np.isfinite(values)
        if not members.any():
            continue
        inside = values[members]
        moments = Moments().merged(inside.size, float(inside.sum()), float(np.square(inside).sum()))
        out[members] = 0.0 if moments.constant else moments.standardise(inside)
    return out
