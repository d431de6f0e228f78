"""N-grams of N captions and of all their references, counted together: one sort serves BLEU and CIDEr-D."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toolkit.metrics.ngrams import Indices, Integers, Ngrams

__all__ = ["EvaluationCounts"]


@dataclass(frozen=True, slots=True)
class EvaluationCounts:
    """What the n-gram metrics need of N images, each with one candidate, and R references in all.

    Captions are numbered image by image, the candidate before its references: R + N numbers.

    Attributes:
        caption_starts: (N + 1,) number of each image's candidate; its references follow.
        lengths: (R + N,) words of each caption.
        orders: (S,) the order, from 0, of the n-gram of an id.
        captions: (E,) of every distinct n-gram of every caption the caption,
        ids: (E,) the id, and
        counts: (E,) how often it comes there; sorted by image, id and caption.
        own: (K,) those of the E that are a candidate's.
        matched_own: (P,) for each n-gram of a reference that its candidate has, too, the place in ``own``, and
        matched: (P,) the place among the E.
        document_images: (D,) images, and
        document_ids: (D,) the distinct n-grams of their references, pair by pair.
    """

    caption_starts: Integers
    lengths: Integers
    orders: npt.NDArray[np.uint8]
    captions: Integers
    ids: Integers
    counts: Integers
    own: Integers
    matched_own: Integers
    matched: Integers
    document_images: Integers
    document_ids: Integers

    @property
    def candidates(self) -> Integers:
        """(N,) numbers of the candidates."""
        return self.caption_starts[:-1]

    @property
    def references(self) -> Integers:
        """(R,) numbers of the references."""
        numbers: Integers = np.delete(np.arange(self.lengths.size), self.candidates)
        return numbers

    @classmethod
    def of(cls, ngrams: Ngrams, sizes: Integers, num_ids: int) -> EvaluationCounts:
        """Count ``ngrams`` of all references, image by image, and then of the N candidates.

        ``sizes`` (N,) are references an image; ``num_ids`` is above every id.
        """
        images = np.arange(sizes.size)
        starts = np.concatenate([[0], np.cumsum(sizes + 1)])
        image_of = np.concatenate([np.repeat(images, sizes), images])
        first = np.repeat(np.cumsum(sizes) - sizes, sizes)
        within = np.concatenate([np.arange(1, first.size + 1) - first, np.zeros_like(images)])
        image, ids, within, counts = _distinct(image_of[ngrams.rows], ngrams.ids, within[ngrams.rows])
        groups = np.flatnonzero(
            _changes(ids) | _changes(image)
        )  # of captions of an image that share an n-gram
        widths = np.diff(groups, append=ids.size)
        said = within[groups] == 0  # by the candidate, which comes first in its group
        own = groups[said]
        others = widths[said] - 1
        steps = np.arange(1, int(others.sum()) + 1) - np.repeat(np.cumsum(others) - others, others)
        documents = groups[widths > said]
        orders = np.zeros(num_ids, dtype=np.uint8)
        orders[ngrams.ids] = ngrams.orders
        numbers = starts[image_of] + np.concatenate(
            [np.arange(1, first.size + 1) - first, np.zeros_like(images)]
        )
        lengths = np.empty_like(ngrams.lengths)
        lengths[numbers] = ngrams.lengths
        return cls(
            caption_starts=starts,
            lengths=lengths,
            orders=orders,
            captions=starts[image] + within,
            ids=ids,
            counts=counts,
            own=own,
            matched_own=np.repeat(np.arange(own.size), others),
            matched=np.repeat(own, others) + steps,
            document_images=image[documents],
            document_ids=ids[documents],
        )


def _distinct(
    images: Integers, ids: Indices, captions: Integers
) -> tuple[Integers, Integers, Integers, Integers]:
    """Distinct (image, id, caption), sorted, and how often each comes. Sorted as one number where that fits."""
    id_bits, caption_bits = (int(part.max(initial=0)).bit_length() for part in (ids, captions))
    if int(images.max(initial=0)).bit_length() + id_bits + caption_bits < 64:
        keys = images << id_bits
        keys |= ids
        keys <<= caption_bits
        keys |= captions
        keys.sort()
        first = np.flatnonzero(_changes(keys))
        keys = keys[first]
        caption = keys & ((1 << caption_bits) - 1)
        keys >>= caption_bits
        columns = [keys >> id_bits, keys & ((1 << id_bits) - 1), caption]
    else:
        order = np.lexsort((captions, ids, images))
        columns = [part[order].astype(np.int64) for part in (images, ids, captions)]
        first = np.flatnonzero(np.logical_or.reduce([_changes(column) for column in columns]))
        columns = [column[first] for column in columns]
    return columns[0], columns[1], columns[2], np.diff(first, append=images.size)


def _changes(values: Integers) -> npt.NDArray[np.bool_]:
    """Where a value differs from the one before it; the first always does."""
    changed = np.ones(values.size, dtype=np.bool_)
    np.not_equal(values[1:], values[:-1], out=changed[1:])
    return changed
