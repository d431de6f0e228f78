"""Scores of a system: the official values on all units, recomputed on resamples."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.errors import DataError
from toolkit.evaluation.scoring import SystemScores, score_caption_results, score_vqa_results
from toolkit.metrics import score_captions, score_vqa

REFERENCES = {
    1: ["a red dog runs", "the dog is running fast"],
    2: ["two cats on a sofa", "cats sleep on the sofa"],
    3: ["a blue bus", "the bus is blue and large"],
}
CAPTIONS = {1: "a dog runs fast", 2: "two cats on a red sofa", 3: ""}


def annotation(question: int, image: int, *answers: str) -> dict:
    rows = [{"answer_id": k, "answer": text} for k, text in enumerate(answers, start=1)]
    return {
        "question_id": question,
        "image_id": image,
        "answer_type": "other",
        "question_type": "what",
        "answers": rows,
    }


def test_corpus_scores_are_the_official_ones() -> None:
    scores = SystemScores.resampled(score_caption_results(REFERENCES, CAPTIONS), None, resamples=20)
    official = score_captions(REFERENCES, CAPTIONS)
    for name, value in official.corpus.items():
        assert scores.value(name) == pytest.approx(value, abs=1e-12)
    assert scores.num_images == 3
    assert scores.num_questions == 0
    assert scores.value("reward") is None


def test_bleu_is_recomputed_on_a_resample_and_not_averaged() -> None:
    result = score_caption_results(REFERENCES, CAPTIONS)
    found = result.statistic(np.array([0, 0, 1]))["bleu_1"]
    references = {0: REFERENCES[1], 1: REFERENCES[1], 2: REFERENCES[2]}
    official = score_captions(references, {0: CAPTIONS[1], 1: CAPTIONS[1], 2: CAPTIONS[2]})
    assert found == pytest.approx(official.corpus["bleu_1"], abs=1e-12)
    assert found != pytest.approx(result.columns["bleu_1"][[0, 0, 1]].mean(), abs=1e-6)


def test_extra_columns_are_averaged_over_images() -> None:
    result = score_caption_results(REFERENCES, CAPTIONS).with_columns(reward=[1.0, 2.0, 6.0])
    scores = SystemScores.resampled(result, None, resamples=10)
    assert scores.value("reward") == 3.0
    assert scores.value("cider") is not None


def test_vqa_accuracy_is_official_and_resampled_by_image() -> None:
    rows = [
        annotation(1, 7, *["yes"] * 10),
        annotation(2, 7, *["red"] * 2, *["blue"] * 8),
        annotation(3, 8, *["2"] * 10),
    ]
    answers = {1: "yes", 2: "red", 3: "3"}
    result = score_vqa_results(rows, answers)
    scores = SystemScores.resampled(None, result, resamples=10)
    official = score_vqa(rows, rows, answers)
    assert round(scores.value("vqa_accuracy") or 0.0, 2) == official.accuracy
    assert result.num_images == 2
    assert set(np.round(result.statistic(np.array([1, 1]))["vqa_accuracy"], 6).ravel()) == {0.0}


def test_missing_captions_are_refused() -> None:
    with pytest.raises(DataError, match="3"):
        score_caption_results(REFERENCES, {1: "a", 2: "b"})
