"""References that lie prepared beside their document frequencies: found again by what they say, not by their ids."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.metrics.ngrams import MAX_ORDER, Integers, NgramIndex
from toolkit.metrics.references import PreparedReferences

__all__ = ["KeptReferences", "caption_digests", "tfidf_norms"]

Floats = npt.NDArray[np.float64]
Digests = npt.NDArray[np.uint64]
_ARRAYS = ("caption_starts", "entry_starts", "entry_ids", "count_starts", "counts", "lengths")


@dataclass(frozen=True, slots=True)
class KeptReferences:
    """Prepared references of N images without ids, and the lengths of their TF-IDF vectors.

    Attributes:
        digests: (N,) of the captions of each image, increasing.
        images: (N,) the image of each digest.
        prepared: the references; its ``places`` are empty.
        norms: (R, 4) Euclidean lengths of the captions' TF-IDF vectors, for each order of n-grams.
    """

    digests: Digests
    images: Integers
    prepared: PreparedReferences
    norms: Floats

    @classmethod
    def of(
        cls, references: Mapping[Any, Sequence[str]], prepared: PreparedReferences, norms: Floats
    ) -> KeptReferences:
        """Keep what was ``prepared`` from ``references``."""
        digests = caption_digests(references)
        images = np.argsort(digests, kind="stable")
        return cls(digests[images], images, replace(prepared, places={}), norms)

    def find(self, references: Mapping[Hashable, Sequence[str]]) -> PreparedReferences | None:
        """The prepared references of the same captions under the ids of ``references``, or None if any is unknown."""
        if not references or not self.digests.size:
            return None
        wanted = caption_digests(references)
        place = np.minimum(np.searchsorted(self.digests, wanted), self.digests.size - 1)
        if not np.array_equal(self.digests[place], wanted):
            return None
        return replace(self.prepared, places=dict(zip(references, self.images[place].tolist(), strict=True)))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays by name, as ``from_arrays`` takes them."""
        own = {f"references_{name}": getattr(self.prepared, name) for name in _ARRAYS}
        return own | {
            "references_digests": self.digests,
            "references_images": self.images,
            "references_norms": self.norms,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> KeptReferences | None:
        """What ``arrays`` gave, or None where a file holds no references."""
        if "references_digests" not in arrays:
            return None
        prepared = PreparedReferences(places={}, **{name: arrays[f"references_{name}"] for name in _ARRAYS})
        names = ("references_digests", "references_images", "references_norms")
        digests, images, norms = (arrays[name] for name in names)
        return cls(digests, images, prepared, norms)


def caption_digests(references: Mapping[Any, Sequence[str]]) -> Digests:
    """(N,) 64-bit digests of the captions of each image, in their order."""
    digests = bytearray()
    for captions in references.values():
        text = f"{list(map(len, captions))}{''.join(captions)}"  # lengths: where one caption ends and another begins
        digests += hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.frombuffer(bytes(digests), dtype=np.uint64)


def tfidf_norms(
    references: PreparedReferences, index: NgramIndex, inverse: Callable[[Integers], Floats]
) -> Floats:
    """(R, 4) Euclidean lengths of the references' TF-IDF vectors; ``inverse`` gives log(N / df) of n-gram ids."""
    squares = np.zeros(references.lengths.size * MAX_ORDER)
    for captions, ids, counts in references.entries():
        slots = captions * MAX_ORDER + index.order_of(ids)
        first = int(slots.min(initial=squares.size))
        own = np.bincount(slots - first, (counts * inverse(ids)) ** 2)
        squares[first : first + own.size] += own
    norms: Floats = np.sqrt(squares.reshape(-1, MAX_ORDER))
    return norms
