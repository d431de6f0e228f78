"""In how many images of a corpus an n-gram occurs: the weights of CIDEr, kept in a file."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import DataError
from toolkit.metrics.kept_references import KeptReferences, tfidf_norms
from toolkit.metrics.ngrams import MAX_ORDER, Integers, Level, NgramIndex
from toolkit.metrics.references import PreparedReferences
from toolkit.metrics.tensorfile import read_tensors, write_tensors
from toolkit.metrics.tokenizer import TOKENIZER

__all__ = ["DocumentFrequencies"]

_FORMAT = "vlm-rlhf document frequencies 1"


@dataclass(frozen=True, slots=True)
class DocumentFrequencies:
    """Document frequencies of n-grams of one to four words. A document is one image with all its references.

    Attributes:
        index: the n-grams, with their ids.
        counts: (S,) how many images have the n-gram of an id.
        num_images: the images counted, N in ``log(N / df)``.
        end_token: the word that closed every reference, or None.
        kept: the references themselves, prepared, so that scoring against them starts at once; or None.
    """

    index: NgramIndex
    counts: npt.NDArray[np.int32]
    num_images: int
    end_token: str | None = None
    kept: KeptReferences | None = None

    @classmethod
    def from_references(
        cls, references: Mapping[Any, Sequence[str]], end_token: str | None = None
    ) -> DocumentFrequencies:
        """Count the n-grams of ``references`` (image id to captions), each caption closed by ``end_token`` if given.

        Raises:
            DataError: there are no images, or an image has no reference.
            UsageError: ``end_token`` is not one word.
        """
        prepared, index = PreparedReferences.build(references, NgramIndex(), end_token)
        table = cls(index, prepared.document_counts(index.size), len(references), end_token)
        norms = tfidf_norms(prepared, index, table.inverse)
        return replace(table, kept=KeptReferences.of(references, prepared, norms))

    def inverse(self, ids: Integers) -> npt.NDArray[np.float64]:
        """(U,) ``log N - log max(1, df)`` of n-gram ``ids`` (U,); ids this table does not know have df 0."""
        known = ids < self.counts.size
        counts = np.ones(ids.size, dtype=np.float64)
        counts[known] = np.maximum(self.counts[ids[known]], 1)
        return np.log(float(self.num_images)) - np.log(counts)

    def of(self, ngram: Sequence[str]) -> int:
        """In how many images the words ``ngram`` follow one another; 0 when they never do or are over four."""
        if not 1 <= len(ngram) <= MAX_ORDER:
            return 0
        encoded = self.index.encode([list(ngram)])
        last = int(encoded.ids[-1])
        return int(self.counts[last]) if last < self.counts.size else 0

    def save(self, path: str | Path, *, with_references: bool = True) -> None:
        """Write the table as safetensors with its settings in the header.

        With the references that it was counted in, if it has them: ``CiderD`` of the same captions then starts
        from the file, whose pages processes share. Without them the file is about a third as large.
        """
        if len(self.index.layers) != 1:
            raise ValueError("a table of frequencies has one layer of n-grams")
        words = "\n".join(self.index.vocabulary).encode()
        tensors: dict[str, npt.NDArray[Any]] = {
            "counts": self.counts,
            "words": np.frombuffer(words, np.uint8),
        }
        for order, level in enumerate(self.index.layers[0], start=2):
            tensors[f"keys_{order}"] = level.keys
            tensors[f"starts_{order}"] = level.starts
        if with_references and self.kept is not None:
            tensors |= self.kept.arrays()
        settings = {"format": _FORMAT, "tokenizer": TOKENIZER, "num_images": str(self.num_images)}
        if self.end_token is not None:
            settings["end_token"] = self.end_token
        write_tensors(path, tensors, settings)

    @classmethod
    def load(cls, path: str | Path) -> DocumentFrequencies:
        """Read a table written by ``save``; its arrays are memory-mapped and shared by processes.

        Raises:
            DataError: the file is no such table, or was made with another tokenizer.
        """
        tensors, settings = read_tensors(path)
        if settings.get("format") != _FORMAT:
            remedy = "build one with: vlm-rlhf data document-frequencies"
            raise DataError(str(path), "not a table of document frequencies", remedy=remedy)
        if settings["tokenizer"] != TOKENIZER:
            found = f"made with tokenizer {settings['tokenizer']!r}, this version has {TOKENIZER!r}"
            raise DataError(
                str(path), found, remedy="build it again with: vlm-rlhf data document-frequencies"
            )
        words = tensors["words"].tobytes().decode()
        vocabulary = {word: place for place, word in enumerate(words.split("\n"))} if words else {}
        levels, offset = [], len(vocabulary)
        for order in range(2, MAX_ORDER + 1):
            levels.append(Level(tensors[f"keys_{order}"], tensors[f"starts_{order}"], offset))  # type: ignore[arg-type]
            offset += tensors[f"keys_{order}"].size
        counts: npt.NDArray[np.int32] = tensors["counts"]  # type: ignore[assignment]
        index = NgramIndex(vocabulary, (tuple(levels),), offset)
        kept = KeptReferences.from_arrays(tensors)
        return cls(index, counts, int(settings["num_images"]), settings.get("end_token"), kept)


def require_same_end_token(frequencies: DocumentFrequencies, end_token: str | None) -> None:
    """Refuse a table whose captions were closed in another way than those to be scored.

    Raises:
        DataError: the end tokens differ.
    """
    if frequencies.end_token != end_token:
        problem = (
            f"built with end token {frequencies.end_token!r}, but captions are scored with {end_token!r}"
        )
        remedy = "build the table again with the same end token: vlm-rlhf data document-frequencies"
        raise DataError("document frequencies", problem, remedy=remedy)


ImageReferences = Mapping[Hashable, Sequence[str]]
