"""Scores of one system, read from its official result files: corpus scores, per-unit scores, bootstrap draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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

    Per image, BLEU is the sentence score of the official tool.
    """
    from toolkit.metrics.captions import score_captions

    ids = tuple(references)
    scores = score_captions(references, {identity: captions[identity] for identity in ids})
    names = list(scores.corpus)
    columns = {name: np.array([scores.per_image[identity][name] for identity in ids]) for name in names}
    texts = tuple(captions[identity] for identity in ids)
    return CaptionResult(ids, texts, columns, scores.statistics.corpus)


def score_vqa_results(
    questions: Mapping[str, object], annotations: Mapping[str, object], answers: Mapping[Id, str]
) -> VqaResult:
    """Official VQA accuracy. Resampling units are images with all their questions, which are not independent."""
    from toolkit.metrics.vqa import score_vqa

    results = [{"question_id": identity, "answer": answer} for identity, answer in answers.items()]
    scores = score_vqa(questions, annotations, results)
    rows: list[Mapping[str, object]] = annotations["annotations"]  # type: ignore[assignment]
    ids = tuple(row["question_id"] for row in rows)
    groups: dict[object, list[float]] = {}
    for row in rows:
        groups.setdefault(row["image_id"], []).append(scores.per_question[row["question_id"]])
    accuracies = np.array([scores.per_question[identity] for identity in ids])
    return VqaResult(
        question_ids=ids,  # type: ignore[arg-type]
        answers=tuple(answers[identity] for identity in ids),  # type: ignore[index]
        accuracies=accuracies,
        statistic=pooled_mean("vqa_accuracy", list(groups.values())),
        num_images=len(groups),
        per_answer_type=dict(scores.per_answer_type),
    )
