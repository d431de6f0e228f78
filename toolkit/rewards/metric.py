"""Benchmark metrics as rewards, row by row: a row's score never depends on the other rows of its batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from toolkit.errors import DataError
from toolkit.metrics import Bleu, CiderD, DocumentFrequencies, vqa_accuracy
from toolkit.records import PromptRow
from toolkit.rewards.base import BoolArray, FloatArray, RewardBatch, RewardOutput

__all__ = ["BleuReward", "CiderReward", "VqaAccuracyReward"]

References = tuple[str, ...]
Scorer = TypeVar("Scorer")


class _Prepared(Generic[Scorer]):
    """Scorers with digested references, kept by the references themselves: rows of any split can be scored."""

    def __init__(self, build: Callable[[Mapping[References, References]], Scorer]) -> None:
        self._build = build
        self._scorers: dict[References, Scorer] = {}

    def groups(self, keys: Sequence[References]) -> list[tuple[Scorer, list[int]]]:
        """The scorers that know ``keys``, each with the places of its keys; new references are digested together."""
        fresh = {key: key for key in keys if key not in self._scorers}
        if fresh:
            self._scorers.update(dict.fromkeys(fresh, self._build(fresh)))
        places: dict[int, tuple[Scorer, list[int]]] = {}
        for place, key in enumerate(keys):
            scorer = self._scorers[key]
            places.setdefault(id(scorer), (scorer, []))[1].append(place)
        return list(places.values())


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
    background = True

    def __init__(self, frequencies: DocumentFrequencies, *, end_token: str | None) -> None:
        self.end_token = end_token
        self._prepared = _Prepared(lambda references: CiderD(references, frequencies, end_token=end_token))

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Scores ``(B,)``; rows of other tasks are not applicable.

        Raises:
            DataError: a caption row without references.
        """
        applicable = _rows_of(batch, "caption", lambda row: bool(row.references), "references")
        chosen = np.flatnonzero(applicable)
        keys = [batch.rows[index].references for index in chosen.tolist()]
        scores = np.full(len(batch), np.nan, dtype=np.float64)
        for scorer, places in self._prepared.groups(keys):
            own = chosen[places]
            captions = [batch.completions[index] for index in own.tolist()]
            ended = [batch.ended[index] for index in own.tolist()] if self.end_token else None
            scores[own] = scorer.score([keys[place] for place in places], captions, ended)
        return RewardOutput(scores, applicable=applicable)


class BleuReward:
    """BLEU of order ``order`` of one caption (Papineni et al. 2002) against the row's references."""

    name = "bleu"
    scale = "0 to 1"
    may_be_constant = False
    background = True

    def __init__(self, *, order: int = 4) -> None:
        if not 1 <= order <= 4:
            raise ValueError("bleu needs 1 <= order <= 4")
        self.order = order
        self._prepared = _Prepared(Bleu)

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Scores ``(B,)``; rows of other tasks are not applicable.

        Raises:
            DataError: a caption row without references.
        """
        applicable = _rows_of(batch, "caption", lambda row: bool(row.references), "references")
        chosen = np.flatnonzero(applicable)
        keys = [batch.rows[index].references for index in chosen.tolist()]
        scores: FloatArray = np.full(len(batch), np.nan, dtype=np.float64)
        for scorer, places in self._prepared.groups(keys):
            own = chosen[places]
            captions = [batch.completions[index] for index in own.tolist()]
            scores[own] = scorer.score([keys[place] for place in places], captions)[:, self.order - 1]
        return RewardOutput(scores, applicable=applicable)


class VqaAccuracyReward:
    """The official soft accuracy of an answer against the annotators' answers (Antol et al. 2015)."""

    name = "vqa_accuracy"
    scale = "0 to 1"
    may_be_constant = False
    background = True

    def __init__(self, *, rule: str = "official") -> None:
        vqa_accuracy("", [""], rule=rule)  # an unknown rule is refused now, not in the first iteration
        self.rule = rule

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Scores ``(B,)``; rows of other tasks are not applicable.

        Raises:
            DataError: a VQA row without answers.
        """
        applicable = _rows_of(batch, "vqa", lambda row: bool(row.answers), "answers")
        scores = np.full(len(batch), np.nan, dtype=np.float64)
        for index in np.flatnonzero(applicable).tolist():
            answers = batch.rows[index].answers
            scores[index] = vqa_accuracy(batch.completions[index], answers, rule=self.rule) / 100.0
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
