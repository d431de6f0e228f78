"""Answers by the rule of their benchmark; yes/no questions as POPE scores them, also on resamples."""

from __future__ import annotations

import typing

import numpy as np
import pytest

from toolkit.config.blocks import AnswerRule
from toolkit.evaluation.answers import YES_NO_SCORES
from toolkit.evaluation.scoring import SystemScores, score_vqa_results
from toolkit.metrics.pope import score_pope
from toolkit.metrics.vqa import VQA_RULES, score_vqa, vqa_accuracy

LABELS = {1: "yes", 2: "no", 3: "no", 4: "yes", 5: "yes"}
ANSWERS = {1: "Yes, there is.", 2: "No", 3: "yes", 4: "there is not", 5: "yes"}
IMAGES = {1: "a", 2: "a", 3: "b", 4: "b", 5: "c"}
POPE_NAMES = ("f1", "precision", "recall", "yes_ratio")


def rows(rule: str) -> list[dict]:
    return [
        {
            "question_id": k,
            "image_id": IMAGES[k],
            "answers": [{"answer": label}],
            "rule": rule,
            "answer_type": label,
        }
        for k, label in LABELS.items()
    ]


@pytest.mark.parametrize(("rule", "theirs"), [("yes_no", "official"), ("yes_no_exact", "exact")])
def test_yes_no_questions_score_as_pope(rule: str, theirs: str) -> None:
    scores = SystemScores.resampled(None, score_vqa_results(rows(rule), ANSWERS), resamples=5)
    expected = score_pope(LABELS, ANSWERS, theirs)
    assert scores.value("vqa_accuracy") == pytest.approx(100 * expected["accuracy"])
    for ours, name in zip(YES_NO_SCORES, POPE_NAMES, strict=True):
        assert scores.value(ours) == pytest.approx(expected[name])


def test_a_resample_of_images_scores_as_those_images() -> None:
    found = score_vqa_results(rows("yes_no"), ANSWERS).statistic(np.array([1, 1, 2]))
    again = {(copy, k): k for copy, k in [(0, 3), (0, 4), (1, 3), (1, 4), (0, 5)]}
    expected = score_pope(
        {key: LABELS[k] for key, k in again.items()}, {key: ANSWERS[k] for key, k in again.items()}
    )
    assert found["yes_no_f1"] == pytest.approx(expected["f1"])
    assert found["vqa_accuracy"] == pytest.approx(100 * expected["accuracy"])


def test_other_rules_are_those_of_the_metrics() -> None:
    annotators = ["Two", "two.", "2", "the two", "three"] * 2
    for rule in VQA_RULES:
        row = {
            "question_id": 1,
            "image_id": 1,
            "answers": [{"answer": text} for text in annotators],
            "rule": rule,
        }
        result = score_vqa_results([row], {1: "two"})
        assert result.accuracies[0] == pytest.approx(vqa_accuracy("two", row["answers"], rule))
        assert "yes_no_f1" not in result.statistic(np.array([0]))


def test_types_have_the_official_means() -> None:
    plain = [
        {key: value for key, value in row.items() if key != "rule"} | {"answers": [{"answer": "yes"}] * 10}
        for row in rows("x")
    ]
    assert (
        dict(score_vqa_results(plain, ANSWERS).per_answer_type)
        == score_vqa(plain, plain, ANSWERS).per_answer_type
    )


def test_recipes_know_every_rule() -> None:
    assert set(typing.get_args(AnswerRule)) == {*VQA_RULES, "yes_no", "yes_no_exact"}
