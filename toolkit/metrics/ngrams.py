"""N-grams of many captions at once, as integers: an exact index without hashing collisions.

An n-gram's id is found from the id of its first n - 1 words and the id of its last word, so that every order needs
one look-up of 64-bit keys. Keys lie in buckets (sorted arrays, which can be memory-mapped and shared by processes).
Ids are unique over all orders: words first, then pairs, and so on.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_ORDER", "Level", "NgramIndex", "Ngrams"]

MAX_ORDER = 4
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio: spreads neighbouring keys

Integers = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int32]
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Ngrams:
    """Every n-gram occurrence of B captions: caption ``rows`` (G,), ``ids`` (G,), ``orders`` (G,) from 0.

    ``lengths`` (B,) are words a caption. Occurrences are grouped by order, and by caption within an order.
    """

    rows: Indices
    ids: Indices
    orders: npt.NDArray[np.uint8]
    lengths: Integers

    def counted(self) -> tuple[Integers, Integers, Integers, Integers]:
        """Distinct n-grams a caption: (rows, ids, orders, counts), each (U,), sorted by row and id."""
        keys = (self.rows.astype(np.int64) << 32) | self.ids
        by_key = np.argsort(keys)  # equal keys have equal orders, so that any of them will do
        keys = keys[by_key]
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        found, counts = keys[first], np.diff(first, append=keys.size)
        return found >> 32, found & 0xFFFFFFFF, self.orders[by_key[first]].astype(np.int64), counts


@dataclass(frozen=True, slots=True)
class Level:
    """N-grams of one order: ``keys`` (K,) by bucket, bucket ``starts`` (2^bits + 1,), first id ``offset``."""

    keys: Keys
    starts: npt.NDArray[np.uint32]
    offset: int

    @classmethod
    def build(cls, keys: Keys, offset: int) -> tuple[Level, Integers]:
        """A level of distinct ``keys`` (K,), and the id of each, which is ``offset`` + its place in ``level.keys``."""
        bits = max(1, int(keys.size).bit_length())
        buckets = _buckets(keys, bits)
        order = np.argsort(keys * _MULTIPLIER)  # by bucket; distinct keys have distinct products
        starts = np.zeros((1 << bits) + 1, dtype=np.uint32)
        np.cumsum(np.bincount(buckets.astype(np.int64), minlength=1 << bits), out=starts[1:])
        ids = np.empty(keys.size, dtype=np.int64)
        ids[order] = np.arange(offset, offset + keys.size)
        return cls(keys=keys[order], starts=starts, offset=offset), ids

    def find(self, wanted: Keys) -> Integers:
        """The ids (Q,) of ``wanted`` (Q,), -1 where a key is not here."""
        ids = np.full(wanted.size, -1, dtype=np.int64)
        if not self.keys.size or not wanted.size:
            return ids
        buckets = _buckets(wanted, int(self.starts.size - 1).bit_length() - 1)
        place = self.starts[buckets].astype(np.int64)
        stop = self.starts[buckets + np.uint64(1)].astype(np.int64)
        pending = np.flatnonzero(place < stop)
        place, stop = place[pending], stop[pending]
        while pending.size:
            hit = self.keys[place] == wanted[pending]
            ids[pending[hit]] = place[hit] + self.offset
            place += 1
            going = ~hit & (place < stop)
            pending, place, stop = pending[going], place[going], stop[going]
        return ids


@dataclass(frozen=True, slots=True)
class NgramIndex:
    """Words and n-grams that are known. ``layers`` holds, for each extension, the levels of orders 2 … 4."""

    vocabulary: Mapping[str, int] = field(default_factory=dict)
    layers: tuple[tuple[Level, ...], ...] = ()
    size: int = 0

    def order_of(self, ids: Integers) -> Integers:
        """The orders (Q,) from 0 of known ``ids`` (Q,)."""
        firsts, orders, start = [], [], 0
        for layer in self.layers:
            for order, first in enumerate([start, *(level.offset for level in layer)]):
                firsts.append(first)
                orders.append(order)
            start = layer[-1].offset + layer[-1].keys.size
        if not firsts:
            return np.zeros(ids.size, dtype=np.int64)
        # An empty order begins where the next one does: the last of equal beginnings is the right one.
        return np.asarray(orders)[np.searchsorted(firsts, ids, side="right") - 1]

    def encode(self, captions: Sequence[Sequence[str]]) -> Ngrams:
        """The n-grams of ``captions``. Unknown ones get ids from ``size`` upwards, valid in this result alone."""
        new_words = _NewWords(self.size)
        words, lengths = self._words(captions, new_words)
        return self.encode_numbers(words, lengths, self.size + len(new_words))

    def encode_numbers(
        self, words: Indices, lengths: Integers, end: int, levels: list[Level] | None = None
    ) -> Ngrams:
        """The n-grams of captions given as numbers of their ``words`` (T,), ``lengths`` (B,) words each.

        Numbers are those of ``vocabulary``; other words have numbers from ``size`` to below ``end``. Unknown n-grams
        get ids from ``end`` upwards; with ``levels`` they are put there, order by order.
        """
        offset = end
        rows = np.repeat(np.arange(lengths.size, dtype=np.int32), lengths)
        starts = np.arange(words.size, dtype=np.int32)
        left = np.repeat(np.cumsum(lengths).astype(np.int32), lengths) - starts  # words from here to the end
        prefix, all_rows, all_ids, counts = words, [rows], [words], [words.size]
        for order in range(1, MAX_ORDER):
            longer = left[starts] > order
            starts, prefix = starts[longer], prefix[longer]
            keys = (prefix.astype(np.uint64) << np.uint64(32)) | words[starts + order].astype(np.uint64)
            prefix, offset = self._order_ids(order, keys, offset, levels)
            all_rows.append(rows[starts])
            all_ids.append(prefix)
            counts.append(prefix.size)
        orders = np.repeat(np.arange(MAX_ORDER, dtype=np.uint8), counts)
        return Ngrams(np.concatenate(all_rows), np.concatenate(all_ids), orders, lengths)

    def extended(self, captions: Iterable[Sequence[str]]) -> tuple[NgramIndex, Ngrams]:
        """An index that also knows the n-grams of ``captions``, and these n-grams. ``self`` stays as it is."""
        new_words = _NewWords(self.size)
        levels: list[Level] = []
        words, lengths = self._words(captions, new_words)
        ngrams = self.encode_numbers(words, lengths, self.size + len(new_words), levels)
        size = levels[-1].offset + levels[-1].keys.size
        index = NgramIndex({**self.vocabulary, **new_words}, (*self.layers, tuple(levels)), size)
        return index, ngrams

    def _words(self, captions: Iterable[Sequence[str]], new_words: _NewWords) -> tuple[Indices, Integers]:
        """Ids of all words (T,) and the words of each caption (B,); captions are not kept."""
        known = self.vocabulary.get if self.vocabulary else None
        ids, lengths = array("i"), array("q")
        for words in captions:
            lengths.append(len(words))
            if known is None:
                ids.extend(map(new_words.__getitem__, words))
                continue
            found = list(map(known, words))
            if None in found:
                pairs = zip(found, words, strict=True)
                found = [new_words[word] if number is None else number for number, word in pairs]
            ids.extend(found)  # type: ignore[arg-type]
        return np.array(ids, dtype=np.int32), np.array(lengths, dtype=np.int64)

    def _order_ids(
        self, order: int, keys: Keys, offset: int, levels: list[Level] | None
    ) -> tuple[Indices, int]:
        """Ids of ``keys`` and the next free id; what is unknown is numbered from ``offset``."""
        ids = np.full(keys.size, -1, dtype=np.int32)
        missing = np.arange(keys.size)
        for layer in self.layers:
            ids[missing] = layer[order - 1].find(keys[missing])
            missing = missing[ids[missing] < 0]
        new_keys, inverse = np.unique(keys[missing], return_inverse=True)
        if levels is None:
            ids[missing] = inverse + offset
        else:
            level, new_ids = Level.build(new_keys, offset)
            levels.append(level)
            ids[missing] = new_ids[inverse]
        return ids, offset + int(new_keys.size)


class _NewWords(dict[str, int]):
    """Numbers words from ``first`` upwards in the order in which they are first asked for."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self._first = first

    def __missing__(self, word: str) -> int:
        number = self[word] = self._first + len(self)
        return number


def _buckets(keys: Keys, bits: int) -> Keys:
    return (keys * _MULTIPLIER) >> np.uint64(64 - bits)
