"""All caption metrics of one result file at once: tokenized once, counted once, resampled fast."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from toolkit.errors import DataError, UsageError
from toolkit.metrics.bleu import BleuCounts
from toolkit.metrics.cider_statistics import CiderStatistics
from toolkit.metrics.counts import EvaluationCounts
from toolkit.metrics.frequencies import DocumentFrequencies, require_same_end_token
from toolkit.metrics.ngrams import MAX_ORDER, Integers, NgramIndex
from toolkit.metrics.numbered import TokenNumbers
from toolkit.metrics.rouge import rouge_l_of_all
from toolkit.metrics.text import check_references, check_texts

__all__ = ["DEFAULT_METRICS", "CaptionScores", "CaptionStatistics", "score_captions"]

DEFAULT_METRICS = ("bleu", "rouge_l", "cider")
_BLEU_NAMES = tuple(f"bleu_{order}" for order in range(1, MAX_ORDER + 1))

Floats = npt.NDArray[np.float64]
Frequencies = DocumentFrequencies | Literal["corpus"]


@dataclass(frozen=True, slots=True)
class CaptionScores:
    """Scores on pycocoevalcap's scale: BLEU and ROUGE-L 0 to 1, CIDEr-D 0 to 10 (published as a hundredfold).

    Attributes:
        corpus: metric to score of the whole set: ``bleu_1`` … ``bleu_4``, ``rouge_l``, ``cider``.
        per_image: image id to metric to score, in the order of the references.
        num_images: how many images were scored.
    """

    corpus: dict[str, float]
    per_image: dict[Any, dict[str, float]]
    num_images: int


class CaptionStatistics:
    """What the metrics need of each image, so that a score of any resample of the images is quick.

    Args:
        references: image id to reference captions.
        results: image id to the caption to score, for the same images.
        metrics: which of ``bleu``, ``rouge_l``, ``cider``.
        frequencies: ``"corpus"`` counts document frequencies in the references of the images scored, and again in
            each resample, as the official tool would; a table stays fixed.

    Raises:
        DataError: no images, an image without references, without a caption, or not among the references; what is no
            text.
        UsageError: an unknown metric.
    """

    def __init__(
        self,
        references: Mapping[Any, Sequence[str]],
        results: Mapping[Any, str],
        metrics: Sequence[str] = DEFAULT_METRICS,
        frequencies: Frequencies = "corpus",
    ) -> None:
        unknown = [name for name in metrics if name not in DEFAULT_METRICS]
        if unknown:
            raise UsageError(f"unknown metrics {unknown}; known are {', '.join(DEFAULT_METRICS)}")
        check_same_images(references, results)
        self.ids: tuple[Hashable, ...] = tuple(references)
        self._bleu: BleuCounts | None = None
        self._cider: CiderStatistics | None = None
        self._rouge: Floats | None = None
        check_references(references)
        check_texts("results", results.items())
        table = frequencies if isinstance(frequencies, DocumentFrequencies) else None
        index = _index_of(table)
        numbers = TokenNumbers(index.vocabulary, index.size)
        sizes = np.fromiter(map(len, references.values()), dtype=np.int64, count=len(references))
        theirs = numbers.of_lines([text for captions in references.values() for text in captions])
        own = numbers.of([results[image_id] for image_id in self.ids])
        if "rouge_l" in metrics:
            self._rouge = rouge_l_of_all(own, theirs, sizes)
        if "bleu" in metrics or "cider" in metrics:
            (their_words, their_lengths), (own_words, own_lengths) = numbers.words(theirs), numbers.words(own)
            words = np.concatenate([their_words, own_words])
            ngrams = index.encode_numbers(words, np.concatenate([their_lengths, own_lengths]), numbers.end)
            num_ids = max(index.size, int(ngrams.ids.max(initial=-1)) + 1)
            counts = EvaluationCounts.of(ngrams, sizes, num_ids)
            self._bleu = BleuCounts.of_evaluation(counts) if "bleu" in metrics else None
            self._cider = CiderStatistics(counts, table) if "cider" in metrics else None

    def per_image(self) -> dict[str, Floats]:
        """Metric to (N,) scores, in the order of ``ids``."""
        scores: dict[str, Floats] = {}
        if self._bleu is not None:
            table = self._bleu.per_caption()
            scores |= {name: table[:, order] for order, name in enumerate(_BLEU_NAMES)}
        if self._rouge is not None:
            scores["rouge_l"] = self._rouge
        if self._cider is not None:
            scores["cider"] = self._cider.per_image()
        return scores

    def corpus(self, indices: Integers | None = None) -> dict[str, float]:
        """Metric to corpus score of all images, or of those at ``indices`` (any length, repeats count again).

        A repeated image counts as another image with the same captions, in the document frequencies too.

        Raises:
            UsageError: ``indices`` is empty: no images have no score.
        """
        chosen = np.arange(len(self.ids)) if indices is None else np.asarray(indices)
        if not len(chosen):
            raise UsageError("a corpus score needs at least one image, found an empty list of indices")
        scores: dict[str, float] = {}
        if self._bleu is not None:
            scores |= dict(zip(_BLEU_NAMES, map(float, self._bleu.corpus(chosen)), strict=True))
        if self._rouge is not None:
            scores["rouge_l"] = float(self._rouge[chosen].mean())
        if self._cider is not None:
            scores["cider"] = self._cider.corpus(chosen)
        return scores


def score_captions(
    references: Mapping[Any, Sequence[str]],
    results: Mapping[Any, str],
    metrics: Sequence[str] = DEFAULT_METRICS,
    frequencies: Frequencies = "corpus",
) -> CaptionScores:
    """Score ``results`` (image id to caption) against ``references`` (image id to captions).

    Equal to pycocoevalcap 1.2 with its tokenizer, except that a caption to score is tokenized alone. Arguments and
    errors as in ``CaptionStatistics``.
    """
    statistics = CaptionStatistics(references, results, metrics, frequencies)
    columns = statistics.per_image()
    names = list(columns)
    rows = (
        np.stack([columns[name] for name in names], axis=1).tolist()
        if names
        else [[] for _ in statistics.ids]
    )
    per_image = {
        image_id: dict(zip(names, row, strict=True))
        for image_id, row in zip(statistics.ids, rows, strict=True)
    }
    return CaptionScores(statistics.corpus(), per_image, len(statistics.ids))


def check_same_images(references: Mapping[Any, object], results: Mapping[Any, object]) -> None:
    """Refuse results that do not cover exactly the images of the references.

    Raises:
        DataError: there are no images; or which ids lack a caption, or lack references.
    """
    if not references:
        raise DataError("references", "there are no images")
    problems = [
        f"image {image_id!r} has references and no caption"
        for image_id in references
        if image_id not in results
    ]
    problems += [
        f"image {image_id!r} has a caption and no references"
        for image_id in results
        if image_id not in references
    ]
    if problems:
        raise DataError(
            "results",
            problems,
            remedy="give one caption for each image of the references, or score those that have one: --subset",
        )


def _index_of(table: DocumentFrequencies | None) -> NgramIndex:
    if table is None:
        return NgramIndex()
    require_same_end_token(table, None)
    return table.index
