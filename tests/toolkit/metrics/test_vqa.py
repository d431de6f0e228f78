"""VQA accuracy equals the official evaluator, its oddities included; other rules by name."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from toolkit.errors import DataError, UsageError
from toolkit.metrics.vqa import VQA_RULES, normalise_answer, score_vqa, vqa_accuracy


def people(*answers: str) -> list[dict[str, object]]:
    return [{"answer": text, "answer_id": place} for place, text in enumerate(answers, start=1)]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The two Dogs", "2 dogs"),
        ("none", "0"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("Im", "im"),
        ("5.", "5"),
        ("1.5", "1.5"),
        ("red/white", "red white"),
        ("red / white", "red  white".replace("  ", " ")),
        ("1,000", "1000"),
        ("half-full", "half full"),
        ("it's 10% & more: $5", "it's 10% & more: $5"),
        ("." * 40 + "x", "." * 8 + "x"),  # at most 32 periods go: a flag handed over as a count
    ],
)
def test_official_normalisation(text, normal):
    assert normalise_answer(text) == normal


def test_agreement_of_annotators():
    """With k of ten the accuracy is 0, 30, 60, 90, 100."""
    for count, expected in enumerate([0.0, 30.0, 60.0, 90.0, 100.0]):
        others = [f"word{place}" for place in range(10 - count)]
        assert vqa_accuracy("red", people(*["red"] * count, *others)) == pytest.approx(expected)


def test_unanimous_answers_are_not_normalised():
    assert vqa_accuracy("No", people(*["no"] * 10)) == 0.0
    assert vqa_accuracy("No", people(*["no"] * 9, "yes")) == pytest.approx(100.0)
    assert vqa_accuracy("No", people(*["no"] * 10), rule="lmms") == 100.0


def test_equal_mappings_are_left_out_together():
    """Without answer_id the official comparison of mappings takes equal annotators for one."""
    same = [{"answer": "red", "answer_confidence": "yes"}] * 4 + [
        {"answer": "blue", "answer_confidence": "yes"}
    ] * 6
    assert vqa_accuracy("red", same) == pytest.approx(60.0)
    assert vqa_accuracy("red", same, rule="index") == pytest.approx(100.0)
    assert vqa_accuracy("red", ["red"] * 4 + ["blue"] * 6) == pytest.approx(100.0)


def test_other_rules():
    ten = people("a Dog.", *["a Dog."] * 3, *["cat"] * 6)
    assert vqa_accuracy("dog", ten, rule="vizwiz") == 0.0  # annotators stay as they are
    assert vqa_accuracy("dog", ten, rule="textvqa") == pytest.approx(100.0)
    assert vqa_accuracy("1", people(*["1."] * 4, *["2"] * 6), rule="vlmevalkit") == 0.0  # keeps "1."
    assert vqa_accuracy("Dog", ["dog"], rule="exact") == 100.0
    assert vqa_accuracy("dog", ["dog", "cat"], rule="simple") == pytest.approx(100 / 3)


def test_score_by_types_is_rounded_as_officially():
    questions = [{"question_id": place} for place in (1, 2, 3)]
    kinds = {1: ("yes/no", "is the"), 2: ("other", "what"), 3: ("other", "what")}
    annotations = [
        {
            "question_id": place,
            "answers": people(*["yes"] * 2, *["no"] * 8),
            "answer_type": kinds[place][0],
            "question_type": kinds[place][1],
        }
        for place in kinds
    ]
    scores = score_vqa(questions, annotations, {1: "yes", 2: "no", 3: "maybe"})
    assert scores.accuracy == 53.33
    assert scores.per_answer_type == {"yes/no": 60.0, "other": 50.0}
    assert scores.per_question_type == {"is the": 60.0, "what": 50.0}
    assert scores.per_question == {1: 60.0, 2: 100.0, 3: 0.0}
    rows = [{"question_id": place, "answer": text} for place, text in ((1, "yes"), (2, "no"), (3, "maybe"))]
    assert score_vqa({"questions": questions}, {"annotations": annotations}, rows) == scores


def test_ids_that_do_not_fit_are_named():
    questions = [{"question_id": 1}, {"question_id": 2}]
    annotations = [{"question_id": 1, "answers": people("a")}]
    with pytest.raises(DataError) as caught:
        score_vqa(questions, annotations, {1: "a", 9: "b"})
    for part in ("question 2 has no annotation", "question 2 has no answer", "unknown question 9"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="answered twice"):
        score_vqa(questions, annotations, [{"question_id": 1, "answer": "a"}] * 2)
    with pytest.raises(UsageError, match="official"):
        vqa_accuracy("a", ["a"], rule="offical")
    with pytest.raises(DataError, match="at least one answer"):
        vqa_accuracy("a", [])


@pytest.mark.parametrize("name", ["vqav2_vs_val", "textvqa_val", "vizwiz_val"])
def test_reference_scores(shared_data: Path, name: str):
    def read(path):
        with gzip.open(shared_data / path, "rt", encoding="utf-8") as stream:
            return json.load(stream)

    expected = read(f"reference_scores/vqa_{name}.json.gz")
    results = {row["question_id"]: row["prediction"] for row in expected["rows"]}
    questions = [
        row for row in read(f"vqa/{name}_questions.json.gz")["questions"] if row["question_id"] in results
    ]
    annotations = read(f"vqa/{name}_annotations.json.gz")["annotations"]
    theirs = {
        "official": "official",
        "lmms": "lmms_vqav2",
        "textvqa": "lmms_textvqa",
        "vlmevalkit": "vlmevalkit",
    }
    for rule, column in theirs.items():
        scores = score_vqa(questions, annotations, results, rule)
        wrong = [
            row
            for row in expected["rows"]
            if abs(scores.per_question[row["question_id"]] - row[column]) > 1e-9
        ]
        assert not wrong
        assert scores.accuracy == expected["overall"][column]
    official = score_vqa(questions, annotations, results)
    assert official.per_answer_type == expected["official_accuracy"]["perAnswerType"]
    assert official.per_question_type == expected["official_accuracy"]["perQuestionType"]
    assert score_vqa(questions, annotations, results, "simple").accuracy == expected["overall"]["simple"]


def test_every_rule_is_documented():
    assert vqa_accuracy.__doc__ is not None
    assert all(f"``{rule}``" in vqa_accuracy.__doc__ for rule in VQA_RULES)
