"""What blind and human mean, on cases that can be counted by hand."""

from __future__ import annotations

import dataclasses

import pytest

from toolkit.errors import DataError
from toolkit.evaluation.baselines import (
    constant_answer,
    constant_caption,
    leave_one_answer_out,
    leave_one_reference_out,
    shuffled_images,
)

from .conftest import caption_row, question_row


@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_no_image_keeps_its_picture(count: int) -> None:
    rows = [caption_row(number, "x") for number in range(count)] + [question_row(5, 1, "a")]
    shuffled = shuffled_images(rows)
    assert all(before.images != after.images for before, after in zip(rows, shuffled, strict=True))
    assert {row.images for row in shuffled[:count]} == {row.images for row in rows[:count]}
    assert shuffled[count].images == shuffled[1].images, "questions share the wrong picture of their image"
    assert shuffled == shuffled_images(rows)
    assert [dataclasses.replace(row, images=()) for row in shuffled] == [
        dataclasses.replace(row, images=()) for row in rows
    ]


def test_one_image_cannot_be_shuffled() -> None:
    with pytest.raises(DataError, match="expected at least 2"):
        shuffled_images([caption_row(1, "x")])


def test_the_constant_caption_is_the_most_central_one() -> None:
    common = "a dog runs on the green grass"
    references = {number: [common, f"thing{number} lies beside object{number} here"] for number in range(6)}
    references[6] = ["a cat sleeps on a red sofa", "the cat naps on a sofa"]
    assert constant_caption(references) == common


def test_the_constant_answer_maximises_official_accuracy() -> None:
    rows = [
        question_row(1, 1, *["yes"] * 10),
        question_row(2, 2, *["red"] * 7, *["yes"] * 3),
        question_row(3, 3, *["red"] * 2, *["blue"] * 8),
    ]
    assert constant_answer(rows) == "yes"


def test_people_are_scored_against_the_other_people() -> None:
    found = leave_one_reference_out([caption_row(1, "a", "b", "c"), caption_row(2, "d", "e", "f")])
    assert found is not None
    texts, rows = found
    assert texts == ["a", "e"]
    assert [row.references for row in rows] == [("b", "c"), ("d", "f")]
    answers = leave_one_answer_out([question_row(1, 1, "a", "b", "c", "d", "e")])
    assert answers is not None
    assert answers[0] == ["a"]
    assert answers[1][0].answers == ("b", "c", "d", "e")


def test_human_has_no_meaning_with_too_few_people() -> None:
    assert leave_one_reference_out([caption_row(1, "a", "b"), caption_row(2, "c")]) is None
    assert leave_one_answer_out([question_row(1, 1, "a", "a", "a", "a")]) is None
    assert leave_one_reference_out([]) is None
    assert leave_one_answer_out([]) is None
