"""CIDEr-D and CIDEr (Vedantam, Zitnick and Parikh, 2015), equal to pycocoevalcap 1.2, prepared once and fast.

A caption's score is the TF-IDF cosine with each reference, averaged over references and over n-grams of one to
four words, times 10. CIDEr-D clips repeated n-grams and lowers the score by the difference in length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from toolkit.errors import UsageError
from toolkit.metrics.frequencies import DocumentFrequencies, require_same_end_token
from toolkit.metrics.kept_references import tfidf_norms
from toolkit.metrics.length import length_weight
from toolkit.metrics.ngrams import MAX_ORDER, Integers, NgramIndex
from toolkit.metrics.references import PreparedReferences
from toolkit.metrics.text import check_texts, metric_words

__all__ = ["Cider", "CiderD"]

_SCALE = 10.0

Floats = npt.NDArray[np.float64]


class CiderD:
    """Scores captions against references that are prepared once.

    Args:
        references: image id to its reference captions, at least one each.
        frequencies: a table of document frequencies, or ``"corpus"`` to count them in ``references``. With one
            image ``"corpus"`` scores everything 0, as pycocoevalcap does; a reward needs a table. A table that
            holds these very captions prepared (in memory or in its file) is used as it is.
        end_token: a word that closes every reference and every caption that ended (SCST's end token), or None.

    Raises:
        DataError: an image has no reference, or the table was built with another end token.
        UsageError: ``end_token`` is not one word.
    """

    _clip = True
    _length_penalty = True

    def __init__(
        self,
        references: Mapping[Any, Sequence[str]],
        frequencies: DocumentFrequencies | Literal["corpus"] = "corpus",
        end_token: str | None = None,
    ) -> None:
        table = frequencies if isinstance(frequencies, DocumentFrequencies) else None
        if table is None and frequencies != "corpus":
            raise UsageError(f"frequencies must be a DocumentFrequencies or 'corpus', found {frequencies!r}")
        if table is not None:
            require_same_end_token(table, end_token)
        self.end_token = end_token
        kept = None if table is None else table.kept
        found = None if kept is None else kept.find(references)
        if table is not None and kept is not None and found is not None:
            self._references, self._index, self._norms = found, table.index, kept.norms
            self.frequencies = table
            return
        known = table.index if table is not None else NgramIndex()
        self._references, self._index = PreparedReferences.build(references, known, end_token)
        if table is None:
            counts = self._references.document_counts(self._index.size)
            table = DocumentFrequencies(self._index, counts, len(references), end_token)
        self.frequencies = table
        self._norms = tfidf_norms(self._references, self._index, table.inverse)

    def score(
        self, ids: Sequence[Any], captions: Sequence[str], ended: Sequence[bool] | None = None
    ) -> Floats:
        """Score each caption against the references of its image.

        Args:
            ids: (B,) image ids; an image may come several times.
            captions: (B,) plain text.
            ended: (B,) whether the caption was closed by its end token; without it none was. Only with
                ``end_token``.

        Returns:
            float64 (B,), 0 to 10. A caption's score depends on no other caption. Nothing is kept.

        Raises:
            DataError: an id has no references, or a caption is no text.
            UsageError: the lengths differ, ``captions`` is one text, or ``ended`` is given without an end token.
        """
        images = self._images(ids, captions, ended)
        words = list(metric_words(captions))
        if self.end_token is not None and ended is not None:
            for caption, closed in zip(words, ended, strict=True):
                if closed:
                    caption.append(self.end_token)
        return self._score_words(images, words)

    def _images(self, ids: Sequence[Any], captions: Sequence[str], ended: Sequence[bool] | None) -> Integers:
        if isinstance(captions, str):
            raise UsageError("captions must be a list of texts, found one text")
        if len(ids) != len(captions):
            raise UsageError(f"{len(ids)} image ids for {len(captions)} captions")
        if ended is not None and self.end_token is None:
            raise UsageError("ended was given, but this scorer has no end_token")
        if ended is not None and len(ended) != len(captions):
            raise UsageError(f"{len(ended)} values of ended for {len(captions)} captions")
        check_texts("captions to score", zip(ids, captions, strict=True))
        return self._references.locate(ids)

    def _score_words(self, images: Integers, words: Sequence[Sequence[str]]) -> Floats:
        ngrams = self._index.encode(words)
        rows, ids, orders, counts = ngrams.counted()
        inverse = self.frequencies.inverse(ids)
        references = self._references
        widths = np.diff(references.caption_starts)[images]
        pair_starts = np.concatenate([[0], np.cumsum(widths)])
        matches = references.match(images, rows, ids, pair_starts)
        clipped = np.minimum(counts[matches.pair_entries], matches.pair_counts) if self._clip else None
        first = clipped if clipped is not None else counts[matches.pair_entries]
        products = first * matches.pair_counts * inverse[matches.pair_entries] ** 2
        slots = matches.pairs * MAX_ORDER + orders[matches.pair_entries]
        dots = np.bincount(slots, products, minlength=int(pair_starts[-1]) * MAX_ORDER).reshape(-1, MAX_ORDER)
        squares = (counts * inverse) ** 2
        own = np.bincount(rows * MAX_ORDER + orders, squares, minlength=len(words) * MAX_ORDER)
        pair_rows = np.repeat(np.arange(len(words)), widths)
        captions = np.arange(pair_starts[-1]) + np.repeat(
            references.caption_starts[images] - pair_starts[:-1], widths
        )
        norms = np.sqrt(own.reshape(-1, MAX_ORDER))[pair_rows] * self._norms[captions]
        cosines = np.divide(dots, norms, out=np.zeros(dots.shape), where=norms > 0).sum(axis=1)
        if self._length_penalty:
            cosines *= length_weight(ngrams.lengths[pair_rows], references.lengths[captions])
        return np.bincount(pair_rows, cosines, minlength=len(words)) / widths / MAX_ORDER * _SCALE


class Cider(CiderD):
    """The original CIDEr: no clipping and no length penalty, so that repeating words pays. Same call as CiderD."""

    _clip = False
    _length_penalty = False
