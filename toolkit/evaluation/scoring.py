"""Scores of one system, read from its official result files: corpus scores, per-unit scores, bootstrap draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.answers import answer_accuracy, yes_no_statistic
from toolkit.evaluation.intervals import Draws, Indices, Statistic, bootstrap, means, pooled_mean
from toolkit.evaluation.split import Id

__all__ = ["CaptionResult", "SystemScores", "VqaResult", "score_caption_results", "score_vqa_results"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CaptionResult:
    """Captions of one system: per-image columns (N,) and corpus scores that can be resampled."""

    image_ids: tuple[Id, ...]
    captions: tuple[str, ...]
    columns: Mapping[str, FloatArray]
    statistic: Statistic

    def with_columns(self, **columns: Sequence[float] | FloatArray) -> CaptionResult:
        """The same result with more per-image values, averaged over images: reward, gold, tokens."""
        arrays = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
        extra = means(arrays)

        def statistic(indices: Indices) -> dict[str, float]:
            return {**self.statistic(indices), **extra(indices)}

        return CaptionResult(self.image_ids, self.captions, {**self.columns, **arrays}, statistic)


@dataclass(frozen=True, slots=True)
class VqaResult:
    """Answers of one system with their accuracies (0–100), grouped by image for resampling."""

    question_ids: tuple[Id, ...]
    answers: tuple[str, ...]
    accuracies: FloatArray
    statistic: Statistic
    num_images: int
    per_answer_type: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SystemScores:
    """Everything known about one system."""

    captions: CaptionResult | None
    vqa: VqaResult | None
    draws: Mapping[str, Draws] = field(default_factory=dict)

    @classmethod
    def resampled(
        cls, captions: CaptionResult | None, vqa: VqaResult | None, *, resamples: int, seed: int = 0
    ) -> SystemScores:
        """Score the results and draw their resamples; the same seed pairs the draws of all systems."""
        draws: dict[str, Draws] = {}
        if captions is not None:
            units = len(captions.image_ids)
            draws["caption"] = bootstrap(captions.statistic, units=units, resamples=resamples, seed=seed)
        if vqa is not None:
            draws["vqa"] = bootstrap(vqa.statistic, units=vqa.num_images, resamples=resamples, seed=seed)
        return cls(captions, vqa, draws)

    @property
    def point(self) -> dict[str, float]:
        """Every score on all units, by name."""
        return {key: value for draws in self.draws.values() for key, value in draws.point.items()}

    def value(self, key: str) -> float | None:
        """One score, None where it has no meaning for this system."""
        return self.point.get(key)

    @property
    def num_images(self) -> int:
        """How many images were captioned."""
        return 0 if self.captions is None else len(self.captions.image_ids)

    @property
    def num_questions(self) -> int:
        """How many questions were answered."""
        return 0 if self.vqa is None else len(self.vqa.question_ids)


def score_caption_results(
    references: Mapping[Id, Sequence[str]], captions: Mapping[Id, str]
) -> CaptionResult:
    """BLEU-1…4, ROUGE-L and CIDEr-D of one caption an image, equal to pycocoevalcap.

    Per image, BLEU is the sentence score of the official tool. On resamples BLEU is recomputed from n-gram counts;
    ROUGE-L and CIDEr-D are means over images, with the document frequencies of all ``references``.

    Raises:
        DataError: the captions do not cover exactly the images of the references.
    """
    from toolkit.metrics.captions import CaptionStatistics

    whole = CaptionStatistics(references, captions)
    bleu = CaptionStatistics(references, captions, metrics=("bleu",))
    columns = whole.per_image()
    averaged = means({name: columns[name] for name in ("rouge_l", "cider")})

    def statistic(indices: Indices) -> dict[str, float]:
        return {**bleu.corpus(indices), **averaged(indices)}

    ids = tuple(references)
    return CaptionResult(ids, tuple(captions[identity] for identity in ids), columns, statistic)


def score_vqa_results(annotations: Sequence[Mapping[str, Any]], answers: Mapping[Id, str]) -> VqaResult:
    """VQA accuracy by each row's rule, official where it names none; for yes/no questions also F1 and share of yes.

    Resampling units are images with all their questions, which are not independent.

    Args:
        annotations: rows of the official annotations file.
        answers: one answer for each of them, by question id.

    Raises:
        DataError: an id is missing, repeated or unknown.
    """
    from toolkit.metrics.vqa import score_vqa

    score_vqa(annotations, annotations, answers)  # names ids that are missing, repeated or unknown
    ids: tuple[Id, ...] = tuple(row["question_id"] for row in annotations)
    # Not rounded question by question, so that the mean is the official corpus accuracy.
    exact = np.array([answer_accuracy(answers[row["question_id"]], row) for row in annotations])
    groups: dict[Any, list[float]] = {}
    kinds: dict[str, list[float]] = {}
    for row, accuracy in zip(annotations, exact.tolist(), strict=True):
        groups.setdefault(row["image_id"], []).append(accuracy)
        kinds.setdefault(str(row.get("answer_type", "none")), []).append(accuracy)
    pooled = pooled_mean("vqa_accuracy", list(groups.values()))
    yes_no = yes_no_statistic(annotations, answers, list(groups))
    return VqaResult(
        question_ids=ids,
        answers=tuple(answers[identity] for identity in ids),
        accuracies=exact,
        statistic=pooled if yes_no is None else lambda indices: {**pooled(indices), **yes_no(indices)},
        num_images=len(groups),
        per_answer_type={kind: round(float(np.mean(values)), 2) for kind, values in kinds.items()},
    )
