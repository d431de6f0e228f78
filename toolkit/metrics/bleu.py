"""BLEU-1 to BLEU-4 (Papineni et al., 2002), equal to pycocoevalcap 1.2: closest reference length, its smoothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import UsageError
from toolkit.metrics.counts import EvaluationCounts
from toolkit.metrics.ngrams import MAX_ORDER, Integers, NgramIndex, Ngrams
from toolkit.metrics.references import PreparedReferences
from toolkit.metrics.text import check_texts, metric_words

__all__ = ["Bleu", "BleuCounts"]

_SMALL = 1e-9  # pycocoevalcap's smoothing: keeps a caption without a match from dividing by zero
_TINY = 1e-15

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BleuCounts:
    """What BLEU needs of each of B captions.

    Attributes:
        correct: (B, 4) n-grams found in the references, clipped.
        guessed: (B, 4) n-grams in the caption.
        lengths: (B,) words of the caption.
        reference_lengths: (B,) words of the reference closest in length, the shorter on a tie.
    """

    correct: Integers
    guessed: Integers
    lengths: Integers
    reference_lengths: Integers

    @classmethod
    def of(
        cls,
        references: PreparedReferences,
        images: Integers,
        ngrams: Ngrams,
        counted: tuple[Integers, Integers, Integers, Integers],
    ) -> BleuCounts:
        """Count ``ngrams`` of captions of ``images`` (B,); ``counted`` is ``ngrams.counted()``."""
        rows, ids, orders, counts = counted
        widths = np.diff(references.caption_starts)[images]
        pair_starts = np.concatenate([[0], np.cumsum(widths)])
        matches = references.match(images, rows, ids, pair_starts)
        most = np.zeros(rows.size, dtype=np.int64)
        np.maximum.at(most, matches.pair_entries, matches.pair_counts)
        slots = rows * MAX_ORDER + orders
        correct = np.bincount(slots, np.minimum(most, counts), minlength=images.size * MAX_ORDER)
        guessed = np.maximum(ngrams.lengths[:, None] - np.arange(MAX_ORDER), 0)
        captions = np.arange(pair_starts[-1]) + np.repeat(
            references.caption_starts[images] - pair_starts[:-1], widths
        )
        closest = _closest_lengths(references.lengths[captions], pair_starts, ngrams.lengths)
        return cls(correct.reshape(-1, MAX_ORDER).astype(np.int64), guessed, ngrams.lengths, closest)

    @classmethod
    def of_evaluation(cls, counts: EvaluationCounts) -> BleuCounts:
        """The same from the counts of an evaluation."""
        own, lengths = counts.own, counts.lengths[counts.candidates]
        most = np.zeros(own.size, dtype=np.int64)
        np.maximum.at(most, counts.matched_own, counts.counts[counts.matched])
        images = np.searchsorted(counts.candidates, counts.captions[own])
        slots = images * MAX_ORDER + counts.orders[counts.ids[own]]
        correct = np.bincount(slots, np.minimum(most, counts.counts[own]), minlength=lengths.size * MAX_ORDER)
        guessed = np.maximum(lengths[:, None] - np.arange(MAX_ORDER), 0)
        starts = counts.caption_starts - np.arange(counts.caption_starts.size)
        closest = _closest_lengths(counts.lengths[counts.references], starts, lengths)
        return cls(correct.reshape(-1, MAX_ORDER).astype(np.int64), guessed, lengths, closest)

    def per_caption(self) -> Floats:
        """(B, 4) BLEU-1 to BLEU-4 of each caption, 0 to 1."""
        return _bleu(self.correct, self.guessed, self.lengths, self.reference_lengths)

    def corpus(self, indices: Integers | None = None) -> Floats:
        """(4,) BLEU-1 to BLEU-4 of all captions together, or of those at ``indices`` (repeats count again)."""
        chosen = slice(None) if indices is None else indices
        correct, guessed = self.correct[chosen].sum(axis=0), self.guessed[chosen].sum(axis=0)
        lengths, closest = self.lengths[chosen].sum(), self.reference_lengths[chosen].sum()
        return _bleu(correct[None], guessed[None], np.asarray([lengths]), np.asarray([closest]))[0]


class Bleu:
    """Scores captions against references that are prepared once.

    Args:
        references: image id to its reference captions, at least one each.

    Raises:
        DataError: an image has no reference.
    """

    def __init__(self, references: Mapping[Any, Sequence[str]]) -> None:
        self._references, self._index = PreparedReferences.build(references, NgramIndex())

    def score(self, ids: Sequence[Any], captions: Sequence[str]) -> Floats:
        """BLEU-1 to BLEU-4 of each caption: (B, 4), 0 to 1.

        Raises:
            DataError: an id has no references, or a caption is no text.
            UsageError: the lengths differ.
        """
        if len(ids) != len(captions):
            raise UsageError(f"{len(ids)} image ids for {len(captions)} captions")
        check_texts("captions to score", zip(ids, captions, strict=True))
        images = self._references.locate(ids)
        ngrams = self._index.encode(list(metric_words(captions)))
        return BleuCounts.of(self._references, images, ngrams, ngrams.counted()).per_caption()


def _bleu(correct: Integers, guessed: Integers, lengths: Integers, reference_lengths: Integers) -> Floats:
    precisions = np.cumprod((correct + _TINY) / (guessed + _SMALL), axis=1)
    means = precisions ** (1 / np.arange(1, MAX_ORDER + 1))
    ratio = (lengths + _TINY) / (reference_lengths + _SMALL)
    # Capped below as well: an empty caption has a ratio near 0 and a penalty of exactly 0.
    with np.errstate(over="ignore", divide="ignore"):
        brevity = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    result: Floats = means * brevity[:, None]
    return result


def _closest_lengths(references: Integers, starts: Integers, lengths: Integers) -> Integers:
    """(B,) length of the reference nearest to each caption's, the shorter of two equally near.

    ``references`` (P,) are lengths, of which ``starts`` (B + 1,) tells those of a caption.
    """
    if not lengths.size:
        return np.zeros(0, dtype=np.int64)
    distance = np.abs(references - np.repeat(lengths, np.diff(starts)))
    span = int(references.max()) + 1
    result: Integers = np.minimum.reduceat(distance * span + references, starts[:-1]) % span
    return result
