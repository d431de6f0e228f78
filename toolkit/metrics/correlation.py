"""Rank correlation with ties (Kendall, 1945; Stuart, 1953): how metrics are compared with human judgements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from toolkit.errors import UsageError

__all__ = ["kendall_tau"]

Numbers = Sequence[float] | npt.NDArray[np.float64]


def kendall_tau(scores: Numbers, judgements: Numbers, variant: str = "b") -> float:
    """Kendall's tau of two columns (N,), -1 to 1.

    ``b`` corrects for ties in both columns; ``c`` suits columns with different numbers of levels, such as a metric
    and a four-point scale. The column with fewer levels decides the time: N log N for each of its levels.

    Raises:
        UsageError: an unknown variant, columns of different lengths, fewer than two rows, a value that is no number.
        A column that is constant has no correlation: the result is NaN.
    """
    first, second = np.asarray(scores, dtype=np.float64), np.asarray(judgements, dtype=np.float64)
    if variant not in ("b", "c"):
        raise UsageError(f"tau-{variant} is not known; there are b and c")
    if first.shape != second.shape or first.ndim != 1 or first.size < 2:
        raise UsageError(f"expected two columns of one length over 1, found {first.shape} and {second.shape}")
    if np.isnan(first).any() or np.isnan(second).any():
        raise UsageError("a column holds values that are no numbers")
    levels = [np.unique(column, return_counts=True)[1] for column in (first, second)]
    if levels[0].size < levels[1].size:
        first, second = second, first
    surplus = _concordant_minus_discordant(first, second)
    n = first.size
    if variant == "c":
        fewest = min(counts.size for counts in levels)
        return surplus * 2 * fewest / (n * n * (fewest - 1)) if fewest > 1 else float("nan")
    pairs = n * (n - 1) // 2
    untied = [pairs - int((counts * (counts - 1) // 2).sum()) for counts in levels]
    return surplus / float(np.sqrt(untied[0]) * np.sqrt(untied[1])) if all(untied) else float("nan")


def _concordant_minus_discordant(values: npt.NDArray[np.float64], levels: npt.NDArray[np.float64]) -> int:
    """Pairs in the same order in both columns minus pairs in opposite order; ``levels`` has few distinct values."""
    surplus = 0
    below = np.zeros(0)
    for level in np.unique(levels):
        own = values[levels == level]
        # For each value here: lower ones at lower levels agree, higher ones disagree.
        lower = np.searchsorted(below, own, side="left").sum()
        higher = own.size * below.size - np.searchsorted(below, own, side="right").sum()
        surplus += int(lower) - int(higher)
        below = np.sort(np.concatenate([below, own]))
    return surplus
