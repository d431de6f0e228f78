"""Metric rewards equal the metrics, row by row, whatever stands beside a row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from toolkit.errors import DataError, UsageError
from toolkit.metrics import Bleu, CiderD, DocumentFrequencies, vqa_accuracy
from toolkit.records import PromptRow
from toolkit.rewards.base import RewardBatch
from toolkit.rewards.metric import BleuReward, CiderReward, VqaAccuracyReward

Batches = Callable[..., RewardBatch]

CORPUS = {
    "1": ["a red circle above a blue square", "a circle over a square"],
    "2": ["two green crosses", "green crosses beside each other"],
    "3": ["a small yellow triangle", "one triangle that is yellow"],
}


def with_references(batch: RewardBatch, corpus: dict[str, list[str]]) -> RewardBatch:
    rows = [
        PromptRow(
            sample_id=row.sample_id,
            task=row.task,
            prompt=row.prompt,
            images=row.images,
            image_id=row.image_id,
            references=tuple(corpus[row.sample_id]),
        )
        for row in batch.rows
    ]
    return RewardBatch(rows, batch.completions, batch.ended, batch.num_tokens)


@pytest.mark.parametrize("end_token", [None, "<eos>"])
def test_cider_equals_the_metric_with_fixed_frequencies(batch_of: Batches, end_token: str | None) -> None:
    table = DocumentFrequencies.from_references(CORPUS, end_token=end_token)
    completions = ["a red circle", "two green crosses", "a blue square", "yellow"]
    ids = ["1", "2", "1", "3"]
    ended = [True, False, True, True]
    batch = with_references(batch_of(completions, sample_ids=ids, ended=ended), CORPUS)
    direct = CiderD(CORPUS, table, end_token=end_token).score(ids, completions, ended if end_token else None)
    reward = CiderReward(table, end_token=end_token)
    assert reward(batch).scores.tolist() == pytest.approx(direct.tolist(), abs=1e-12)
    alone = [reward(batch.take([index])).scores[0] for index in range(4)]
    assert alone == pytest.approx(direct.tolist(), abs=1e-12)


def test_a_caption_that_closed_itself_earns_the_end_token(batch_of: Batches) -> None:
    table = DocumentFrequencies.from_references(CORPUS, end_token="<eos>")
    batch = batch_of(["two green crosses"] * 2, sample_ids=["2", "2"], ended=[True, False])
    closed, cut = CiderReward(table, end_token="<eos>")(with_references(batch, CORPUS)).scores
    assert closed > cut


def test_rows_of_the_other_task_are_left_out(batch_of: Batches) -> None:
    table = DocumentFrequencies.from_references(CORPUS, end_token=None)
    batch = batch_of(["red", "red circle"], tasks=["vqa", "caption"])
    assert CiderReward(table, end_token=None)(batch).applies.tolist() == [False, True]
    assert BleuReward()(batch).applies.tolist() == [False, True]
    assert VqaAccuracyReward()(batch).applies.tolist() == [True, False]


def test_bleu_equals_the_metric(batch_of: Batches) -> None:
    texts = ["a red circle above a blue square", "two crosses"]
    batch = with_references(batch_of(texts, sample_ids=["1", "2"]), CORPUS)
    direct = Bleu(CORPUS).score(["1", "2"], texts)
    for order in (1, 4):
        assert BleuReward(order=order)(batch).scores.tolist() == direct[:, order - 1].tolist()
    with pytest.raises(ValueError, match="order"):
        BleuReward(order=5)


def test_vqa_accuracy_is_the_official_one_as_a_fraction(batch_of: Batches) -> None:
    batch = batch_of(["red", "blue", "green", "The Red."], tasks=["vqa"] * 4)
    expected = [vqa_accuracy(text, batch.rows[0].answers) / 100 for text in batch.completions]
    assert VqaAccuracyReward()(batch).scores.tolist() == expected
    assert expected[0] == 1.0
    with pytest.raises(UsageError, match="unknown VQA rule"):
        VqaAccuracyReward(rule="nonsense")


def test_a_row_without_anything_to_score_against_is_named(batch_of: Batches) -> None:
    corpus: dict[str, list[str]] = {"1": []}
    batch = with_references(batch_of(["x"], sample_ids=["1"]), corpus)
    with pytest.raises(DataError, match="row '1' of task caption has no references"):
        BleuReward()(batch)


def test_a_growing_stream_of_references_stays_right(batch_of: Batches) -> None:
    """Rows seen earlier and rows seen first are scored alike, in one batch."""
    table = DocumentFrequencies.from_references(CORPUS, end_token=None)
    texts = ["a red circle", "two green crosses", "a small yellow triangle"]
    batch = with_references(batch_of(texts, sample_ids=["1", "2", "3"]), CORPUS)
    reward = CiderReward(table, end_token=None)
    first = [reward(batch.take([0])).scores[0], *reward(batch.take([1, 0])).scores[:1]]
    whole = reward(batch).scores
    assert first == whole[:2].tolist()
    assert np.isfinite(whole).all()
