"""Benchmark metrics as rewards, row by row: a row's score never depends on the other rows of its batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from toolkit.errors import DataError
from toolkit.metrics import CiderD, DocumentFrequencies
from toolkit.metrics.bleu import sentence_bleu
from toolkit.metrics.vqa import vqa_accuracy
from toolkit.records import PromptRow
from toolkit.rewards.base import BoolArray, RewardBatch, RewardOutput

__all__ = ["BleuReward", "CiderReward", "VqaAccuracyReward"]


class CiderReward:
    """CIDEr-D (Vedantam et al. 2015) against the row's own references.

    Document frequencies are fixed, from the training references: those of the batch would make a caption's
    score depend on its neighbours, and be 0 for a batch of one. With an end token in the table, a completion
    that closed itself earns it and one that was cut does not (the ``<eos>`` of self-critical training:
    without it captions lose their last words).
    """

    name = "cider"
    scale = "0 to 10"
    may_be_constant = False

    def __init__(self, frequencies: DocumentFrequencies, *, end_token: str | None) -> None:
        self.frequencies = frequencies
        self.end_token = end_token
        self._scorers: dict[tuple[str, ...], CiderD] = {}

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Scores ``(B,)``; rows of other tasks are not applicable.

        Raises:
            DataError: a caption row without references.
        """
        applicable = _rows_of(batch, "caption", lambda row: bool(row.references), "references")
        scores = np.full(len(batch), np.nan, dtype=np.float64)
        chosen = [int(index) for index in np.flatnonzero(applicable)]
        keys = {index: batch.rows[index].references for index in chosen}
        self._prepare(set(keys.values()))
        for scorer in {id(self._scorers[key]): self._scorers[key] for key in keys.values()}.values():
            own = [index for index in chosen if self._scorers[keys[index]] is scorer]
            captions = [batch.completions[index] for index in own]
            ended = [batch.ended[index] for index in own] if self.end_token else None
            scores[own] = scorer.score([keys[index] for index in own], captions, ended)
        return RewardOutput(scores, applicable=applicable)

    def _prepare(self, references: set[tuple[str, ...]]) -> None:
        """Digest reference sets that were not seen before, in one go; they are kept, keyed by themselves."""
        fresh = {key: key for key in references if key not in self._scorers}
        if fresh:
            scorer = CiderD(fresh, self.frequencies, end_token=self.end_token)
            self._scorers.update(dict.fromkeys(fresh, scorer))


class BleuReward:
    """Sentence BLEU (Papineni et al. 2002) of order ``order`` against the row's references."""

    name = "bleu"
    scale = "0 to 1"
    may_be_constant = False

    def __init__(self, *, order: int = 4) -> None:
        if not 1 <= order <= 4:
            raise ValueError("bleu needs 1 <= order <= 4")
        self.order = order

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Scores ``(B,)``; rows of other tasks are not applicable.

        Raises:
            DataError: a caption row without references.
        """
        applicable = _rows_of(batch, "caption", lambda row: bool(row.references), "references")
        scores = np.full(len(batch), np.nan, dtype=np.float64)
        for index in np.flatnonzero(applicable):
            scores[index] = sentence_bleu(batch.rows[index].references, batch.completions[index])[
                self.order - 1
            ]
        return RewardOutput(scores, applicable=applicable)


class VqaAccuracyReward:
    """The official soft accuracy of an answer against the annotators' answers (Antol et al. 2015)."""

    name = "vqa_accuracy"
    scale = "0 to 1"
    may_be_constant = False

    def __init__(self, *, rule: str = "official") -> None:
        self.rule = rule

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Scores ``(B,)``; rows of other tasks are not applicable.

        Raises:
            DataError: a VQA row without answers.
        """
        applicable = _rows_of(batch, "vqa", lambda row: bool(row.answers), "answers")
        scores = np.full(len(batch), np.nan, dtype=np.float64)
        for index in np.flatnonzero(applicable):
            scores[index] = vqa_accuracy(batch.completions[index], batch.rows[index].answers, rule=self.rule)
        return RewardOutput(scores, applicable=applicable)


def _rows_of(batch: RewardBatch, task: str, complete: Callable[[PromptRow], bool], lacking: str) -> BoolArray:
    """``(B,)``: rows of ``task``; each of them must be complete."""
    problems = [
        f"row {row.sample_id!r} of task {task} has no {lacking} to score against"
        for row in batch.rows
        if row.task == task and not complete(row)
    ]
    if problems:
        raise DataError("reward", problems)
    return np.asarray([row.task == task for row in batch.rows], dtype=bool)
