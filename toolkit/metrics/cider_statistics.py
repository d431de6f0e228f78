"""CIDEr-D of resampled images: what does not change is counted once, document frequencies are counted anew."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toolkit.metrics.frequencies import DocumentFrequencies
from toolkit.metrics.length import length_weight
from toolkit.metrics.ngrams import MAX_ORDER, Integers, NgramIndex, Ngrams
from toolkit.metrics.references import PreparedReferences

__all__ = ["CiderStatistics"]

Floats = npt.NDArray[np.float64]


class CiderStatistics:
    """Counts of N images, each with one candidate caption.

    Args:
        references: the prepared references of the N images.
        index: the index they were prepared with.
        ngrams: n-grams of the candidates, one caption for each image, in the same order.
        counted: ``ngrams.counted()``.
        frequencies: a fixed table, or None to count document frequencies in the references, per resample.
    """

    def __init__(
        self,
        references: PreparedReferences,
        index: NgramIndex,
        ngrams: Ngrams,
        counted: tuple[Integers, Integers, Integers, Integers],
        frequencies: DocumentFrequencies | None,
    ) -> None:
        self._fixed = frequencies
        rows, ids, orders, counts = counted
        self._num_images = rows_total = ngrams.lengths.size
        self._size = int(max(index.size, ids.max(initial=-1) + 1))
        self._widths = np.diff(references.caption_starts)
        self._documents = _Grouped(
            references.entry_ids, np.repeat(np.arange(rows_total), np.diff(references.entry_starts))
        )
        pair_rows = np.repeat(np.arange(rows_total), self._widths)
        self._pair_rows = pair_rows
        self._weight = length_weight(ngrams.lengths[pair_rows], references.lengths)
        matches = references.match(np.arange(rows_total), rows, ids, references.caption_starts)
        useful = matches.pair_counts > 0
        entries, pairs = matches.pair_entries[useful], matches.pairs[useful]
        products = np.minimum(counts[entries], matches.pair_counts[useful]) * matches.pair_counts[useful]
        pieces = zip(*references.entries(), strict=True)
        captions, reference_ids, reference_counts = (np.concatenate(piece) for piece in pieces)
        size = references.lengths.size * MAX_ORDER
        self._dots = _SquaredSums(pairs * MAX_ORDER + orders[entries], ids[entries], products, size)
        slots = captions * MAX_ORDER + index.order_of(reference_ids)
        self._reference_squares = _SquaredSums(slots, reference_ids, reference_counts**2, size)
        self._own_squares = _SquaredSums(rows * MAX_ORDER + orders, ids, counts**2, rows_total * MAX_ORDER)

    def per_image(self) -> Floats:
        """(N,) CIDEr-D of each image among all N."""
        return self._scores(np.ones(self._num_images, dtype=np.int64))

    def corpus(self, indices: Integers) -> float:
        """Mean CIDEr-D of the images at ``indices``, repeats counted again."""
        times = np.bincount(indices, minlength=self._num_images)
        return float(self._scores(times) @ times / indices.size)

    def _scores(self, times: Integers) -> Floats:
        inverse = self._inverse(times) ** 2
        dots = self._dots.of(inverse)
        own = np.sqrt(self._own_squares.of(inverse)).reshape(-1, MAX_ORDER)
        norms = np.sqrt(self._reference_squares.of(inverse)) * own[self._pair_rows].ravel()
        cosines = (
            np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
            .reshape(-1, MAX_ORDER)
            .sum(axis=1)
        )
        sums = np.bincount(self._pair_rows, cosines * self._weight, minlength=self._num_images)
        return sums / self._widths / MAX_ORDER * 10.0

    def _inverse(self, times: Integers) -> Floats:
        """(S,) inverse document frequency of every n-gram when image i comes ``times[i]`` times."""
        if self._fixed is not None:
            return self._fixed.inverse(np.arange(self._size))
        counts = self._documents.of(times, self._size)
        return np.log(float(times.sum())) - np.log(np.maximum(counts, 1.0))


class _Grouped:
    """How often each n-gram's images come, for changing weights of the images."""

    def __init__(self, ids: npt.NDArray[np.integer], images: Integers) -> None:
        order = np.argsort(ids)  # the sums below are of whole numbers: any order gives the same
        self._images = images[order].astype(np.int32)
        sorted_ids = ids[order]
        self._starts = np.flatnonzero(np.diff(sorted_ids, prepend=-1))
        self._ids = sorted_ids[self._starts]

    def of(self, times: Integers, size: int) -> Floats:
        counts = np.zeros(size, dtype=np.float64)
        if self._ids.size:
            counts[self._ids] = np.add.reduceat(times.astype(np.float64)[self._images], self._starts)
        return counts


class _SquaredSums:
    """Sums of ``factor * weight[id]`` into slots, for changing weights of the n-grams."""

    def __init__(self, slots: Integers, ids: Integers, factors: Integers, size: int) -> None:
        order = np.argsort(slots, kind="stable")
        slots = slots[order]
        self._ids = ids[order].astype(np.int32)
        self._factors = factors[order].astype(np.float64)
        self._starts = np.flatnonzero(np.diff(slots, prepend=-1))
        self._slots = slots[self._starts]
        self._size = size

    def of(self, weights: Floats) -> Floats:
        sums = np.zeros(self._size, dtype=np.float64)
        if self._slots.size:
            sums[self._slots] = np.add.reduceat(weights[self._ids] * self._factors, self._starts)
        return sums
