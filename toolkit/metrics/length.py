"""The length penalty of CIDEr-D."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toolkit.metrics.ngrams import Integers

__all__ = ["length_weight"]

_SIGMA = 6.0


def length_weight(candidate: Integers, reference: Integers) -> npt.NDArray[np.float64]:
    """(P,) weights 0 to 1 of pairs of captions of ``candidate`` (P,) and ``reference`` (P,) words.

    A Gaussian of the difference in word *pairs*, as the official code measures length: an empty caption counts as
    long as one of a single word.
    """
    difference = np.maximum(candidate - 1, 0) - np.maximum(reference - 1, 0)
    weights: npt.NDArray[np.float64] = np.exp(-(difference**2) / (2 * _SIGMA**2))
    return weights
