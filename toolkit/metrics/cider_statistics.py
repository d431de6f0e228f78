"""CIDEr-D of resampled images: what does not change is counted once, document frequencies are counted anew."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toolkit.metrics.counts import EvaluationCounts
from toolkit.metrics.frequencies import DocumentFrequencies
from toolkit.metrics.length import length_weight
from toolkit.metrics.ngrams import MAX_ORDER, Integers

__all__ = ["CiderStatistics"]

Floats = npt.NDArray[np.float64]


class CiderStatistics:
    """Counts of N images, each with one candidate caption.

    Args:
        counts: n-grams of the candidates and of their references.
        frequencies: a fixed table, by whose ids n-grams were counted, or None to count document frequencies in the
            references, per resample.
    """

    def __init__(self, counts: EvaluationCounts, frequencies: DocumentFrequencies | None) -> None:
        self._fixed = frequencies
        self._num_images, self._num_ids = counts.candidates.size, counts.orders.size
        self._document_images, self._document_ids = counts.document_images, counts.document_ids
        self._candidates, self._references = counts.candidates, counts.references
        self._widths = np.diff(counts.caption_starts) - 1
        self._pair_rows = np.repeat(np.arange(self._num_images), self._widths)
        lengths = counts.lengths[self._candidates][self._pair_rows], counts.lengths[self._references]
        self._weight = length_weight(*lengths)
        slots = counts.captions * MAX_ORDER + counts.orders[counts.ids]
        size = counts.lengths.size * MAX_ORDER
        said, told = counts.counts[counts.own[counts.matched_own]], counts.counts[counts.matched]
        products = np.minimum(said, told) * told
        self._dots = _Sums(slots[counts.matched], counts.ids[counts.matched], products, size)
        self._squares = _Sums(slots, counts.ids, counts.counts**2, size)

    def per_image(self) -> Floats:
        """(N,) CIDEr-D of each image among all N."""
        return self._scores(np.ones(self._num_images, dtype=np.int64))

    def corpus(self, indices: Integers) -> float:
        """Mean CIDEr-D of the images at ``indices``, repeats counted again."""
        times = np.bincount(indices, minlength=self._num_images)
        return float(self._scores(times) @ times / indices.size)

    def _scores(self, times: Integers) -> Floats:
        inverse = self._inverse(times) ** 2
        dots = self._dots.of(inverse).reshape(-1, MAX_ORDER)[self._references]
        norms = np.sqrt(self._squares.of(inverse)).reshape(-1, MAX_ORDER)
        norms = norms[self._references] * norms[self._candidates][self._pair_rows]
        cosines = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0).sum(axis=1)
        sums = np.bincount(self._pair_rows, cosines * self._weight, minlength=self._num_images)
        return sums / self._widths / MAX_ORDER * 10.0

    def _inverse(self, times: Integers) -> Floats:
        """(S,) inverse document frequency of every n-gram when image i comes ``times[i]`` times."""
        if self._fixed is not None:
            return self._fixed.inverse(np.arange(self._num_ids))
        weights = times.astype(np.float64)[self._document_images]
        documents = np.bincount(self._document_ids, weights, minlength=self._num_ids)
        return np.log(float(times.sum())) - np.log(np.maximum(documents, 1.0))


class _Sums:
    """Sums of ``factor * weight[id]`` into slots, for changing weights of the n-grams."""

    def __init__(self, slots: Integers, ids: Integers, factors: Integers, size: int) -> None:
        self._slots, self._ids, self._factors = slots, ids, factors.astype(np.float64)
        self._size = size

    def of(self, weights: Floats) -> Floats:
        sums = np.bincount(self._slots, weights[self._ids] * self._factors, minlength=self._size)
        return sums.astype(np.float64, copy=False)  # whole numbers where there is nothing to add
