"""Reference captions prepared once: the n-grams of every image, ready to be compared with many candidates."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from toolkit.errors import DataError, UsageError
from toolkit.metrics.ngrams import MAX_ORDER, Integers, NgramIndex, Ngrams
from toolkit.metrics.text import check_references, metric_words

__all__ = ["Matches", "PreparedReferences"]

_IMAGES_A_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Matches:
    """Candidate n-grams found among their image's references.

    One item for each match and each reference of the image: the candidate-reference pair ``pairs`` (P,), the place
    of the n-gram in the arrays that were matched ``pair_entries`` (P,), and how often that reference has it
    ``pair_counts`` (P,), which may be 0.
    """

    pairs: Integers
    pair_entries: Integers
    pair_counts: Integers


@dataclass(frozen=True, slots=True)
class PreparedReferences:
    """References of N images with R captions in all, as arrays.

    Attributes:
        places: image id to its place 0 … N - 1.
        caption_starts: (N + 1,) where an image's captions begin.
        entry_starts: (N + 1,) where an image's distinct n-grams begin in ``entry_ids``.
        entry_ids: (E,) n-gram ids, increasing within an image.
        count_starts: (N + 1,) where an image's table begins in ``counts``.
        counts: an image's table is (its n-grams, its captions) row by row: how often the caption has the n-gram.
        lengths: (R,) words of a caption.
    """

    places: Mapping[Hashable, int]
    caption_starts: Integers
    entry_starts: Integers
    entry_ids: npt.NDArray[np.int32]
    count_starts: Integers
    counts: npt.NDArray[np.unsignedinteger]
    lengths: Integers

    @classmethod
    def build(
        cls,
        references: Mapping[Hashable, Sequence[str]],
        index: NgramIndex,
        end_token: str | None = None,
        words: Iterable[Sequence[str]] | None = None,
    ) -> tuple[PreparedReferences, NgramIndex]:
        """The prepared references, and the index extended by their n-grams.

        ``words`` are those of all captions in order, if they are known already; each caption is tokenized alone if
        not, and closed by ``end_token``.

        Raises:
            DataError: an image has no reference, or a reference is no text.
            UsageError: ``end_token`` holds white space, or is empty.
        """
        check_end_token(end_token)
        check_references(references)
        if words is None:
            closing = [] if end_token is None else [end_token]
            texts = (caption for captions in references.values() for caption in captions)
            words = (caption + closing for caption in metric_words(texts))
        sizes = np.fromiter(map(len, references.values()), dtype=np.int64, count=len(references))
        index, ngrams = index.extended(words)
        return cls._from_ngrams(references, sizes, ngrams), index

    @classmethod
    def _from_ngrams(
        cls, references: Mapping[Hashable, Sequence[str]], sizes: Integers, ngrams: Ngrams
    ) -> PreparedReferences:
        caption_starts = np.concatenate([[0], np.cumsum(sizes)])
        image_of_caption = np.repeat(np.arange(sizes.size), sizes)
        ids, entries_an_image, tables = [], [], []
        for first in range(0, max(sizes.size, 1), _IMAGES_A_CHUNK):
            widths = sizes[first : first + _IMAGES_A_CHUNK]
            rows, own_ids = _rows_between(ngrams, caption_starts[first], caption_starts[first + widths.size])
            images = image_of_caption[rows]
            table = _chunk_table(images - first, own_ids, rows - caption_starts[images], widths)
            ids.append(table[0])
            entries_an_image.append(table[1])
            tables.append(table[2])
        entries = np.concatenate(entries_an_image)
        return cls(
            places={image_id: place for place, image_id in enumerate(references)},
            caption_starts=caption_starts,
            entry_starts=np.concatenate([[0], np.cumsum(entries)]),
            entry_ids=np.concatenate(ids),
            count_starts=np.concatenate([[0], np.cumsum(entries * sizes)]),
            counts=np.concatenate(tables),
            lengths=ngrams.lengths,
        )

    def locate(self, ids: Sequence[Hashable]) -> Integers:
        """The places (B,) of image ``ids``.

        Raises:
            DataError: an id is not among the references.
        """
        unknown = [image_id for image_id in ids if image_id not in self.places]
        if unknown:
            problems = [f"image {image_id!r} has no references" for image_id in dict.fromkeys(unknown)]
            raise DataError("captions to score", problems)
        return np.fromiter((self.places[image_id] for image_id in ids), dtype=np.int64, count=len(ids))

    def match(self, images: Integers, rows: Integers, ids: Integers, pair_starts: Integers) -> Matches:
        """Find candidate n-grams ``ids`` (U,) of candidates ``rows`` (U,) in the references of their images (B,).

        ``pair_starts`` (B + 1,) numbers the candidate-reference pairs. Returns every match for every reference.
        """
        image_of_entry = images[rows]
        place = self._search(image_of_entry, ids)
        entries = np.flatnonzero(place >= 0)
        place, image_of_entry = place[entries], image_of_entry[entries]
        widths = np.diff(self.caption_starts)[image_of_entry]
        within = _ranges(widths)
        first = self.count_starts[image_of_entry] + (place - self.entry_starts[image_of_entry]) * widths
        counts = self.counts[np.repeat(first, widths) + within].astype(np.int64)
        pairs = np.repeat(pair_starts[rows[entries]], widths) + within
        return Matches(pairs, np.repeat(entries, widths), counts)

    def _search(self, images: Integers, ids: Integers) -> Integers:
        """Places in ``entry_ids`` of n-grams ``ids`` (U,) within ``images`` (U,), -1 where absent; bisection."""
        low, high = self.entry_starts[images], self.entry_starts[images + 1]
        end = high
        widest = int((high - low).max(initial=0))
        last = self.entry_ids.size - 1
        for _ in range(widest.bit_length()):
            middle = (low + high) >> 1
            less = (self.entry_ids[np.minimum(middle, last)] < ids) & (low < high)
            low = np.where(less, middle + 1, low)
            high = np.where(less, high, middle)
        if last < 0:
            return np.full(ids.size, -1, dtype=np.int64)
        found = (low < end) & (self.entry_ids[np.minimum(low, last)] == ids)
        return np.where(found, low, -1)

    def document_counts(self, size: int) -> npt.NDArray[np.int32]:
        """(size,) how many images have each n-gram id in at least one reference."""
        return np.bincount(self.entry_ids, minlength=size).astype(np.int32)

    def entries(self) -> Iterator[tuple[Integers, Integers, Integers]]:
        """Every n-gram of every caption, in pieces: (caption, n-gram id, count), each (F,), in storage order."""
        widths = np.diff(self.caption_starts)
        for first in range(0, widths.size, _IMAGES_A_CHUNK):
            last = min(first + _IMAGES_A_CHUNK, widths.size)
            start = self.count_starts[first]
            place = np.flatnonzero(self.counts[start : self.count_starts[last]]) + start
            image = np.searchsorted(self.count_starts, place, side="right") - 1
            within = place - self.count_starts[image]
            captions = self.caption_starts[image] + within % widths[image]
            ids = self.entry_ids[self.entry_starts[image] + within // widths[image]].astype(np.int64)
            yield captions, ids, self.counts[place].astype(np.int64)


def check_end_token(end_token: str | None) -> None:
    """Refuse an end token that could not be one word.

    Raises:
        UsageError: it is empty or holds white space.
    """
    if end_token is not None and end_token.split() != [end_token]:
        raise UsageError(f"end_token must be one word without white space, found {end_token!r}")


def _rows_between(ngrams: Ngrams, first: int, last: int) -> tuple[Integers, Integers]:
    """Rows and ids of the n-grams of captions ``first`` … ``last`` - 1, which lie together within each order."""
    bounds = np.searchsorted(ngrams.orders, np.arange(MAX_ORDER + 1))
    rows, ids = [], []
    for start, stop in pairwise(bounds):
        low, high = start + np.searchsorted(ngrams.rows[start:stop], [first, last])
        rows.append(ngrams.rows[low:high])
        ids.append(ngrams.ids[low:high])
    return np.concatenate(rows).astype(np.int64), np.concatenate(ids).astype(np.int64)


def _chunk_table(
    images: Integers, ids: Integers, in_image: Integers, widths: Integers
) -> tuple[npt.NDArray[np.int32], Integers, npt.NDArray[np.unsignedinteger]]:
    """Distinct n-grams of some images, how many an image has, and their count tables row by row."""
    keys, inverse = np.unique((images << 32) | ids, return_inverse=True)
    image_of_key = keys >> 32
    width_of_key = widths[image_of_key]
    starts = np.cumsum(width_of_key) - width_of_key
    table = np.bincount(starts[inverse] + in_image, minlength=int(width_of_key.sum()))
    kind = np.uint8 if table.max(initial=0) < 256 else np.uint32
    sizes = np.bincount(image_of_key, minlength=widths.size)
    return (keys & 0xFFFFFFFF).astype(np.int32), sizes, table.astype(kind)


def _ranges(widths: Integers) -> Integers:
    """0 … w - 1 for each w of ``widths``, one after another."""
    total = np.cumsum(widths)
    return np.arange(int(total[-1]) if total.size else 0) - np.repeat(total - widths, widths)
