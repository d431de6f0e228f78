"""POPE and CHAIR on cases that can be counted by hand."""

from __future__ import annotations

import json

import pytest

from toolkit.errors import DataError, UsageError
from toolkit.metrics.chair import Synonyms, read_objects, score_chair
from toolkit.metrics.pope import score_pope

SYNONYMS = [
    ["person", "man", "woman", "child"],
    ["hot dog"],
    ["dog", "puppy"],
    ["dining table", "table"],
    ["bus"],
]


def test_pope_counts():
    labels = {1: "yes", 2: "yes", 3: "no", 4: "no"}
    answers = {1: "Yes, there is.", 2: "No, it is not.", 3: "There is. No doubt", 4: "no"}
    scores = score_pope(labels, answers)
    assert scores == {
        "num_questions": 4,
        "accuracy": 0.5,
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
        "yes_ratio": 0.5,
    }
    assert score_pope({1: "yes"}, {1: "yes."}, rule="exact")["accuracy"] == 0.0
    assert score_pope({1: "no"}, {1: "no"})["f1"] == 0.0


def test_pope_names_what_is_wrong():
    with pytest.raises(DataError) as caught:
        score_pope({1: "yes", 2: "maybe"}, {1: "yes", 3: "no"})
    for part in ("question 2: label 'maybe'", "question 2 has no answer", "unknown question 3"):
        assert part in str(caught.value)
    with pytest.raises(UsageError, match="strict"):
        score_pope({1: "yes"}, {1: "yes"}, rule="strict")


def test_chair_counts_mentions():
    scores = score_chair(
        {1: "Two men eat hot dogs at a table", 2: "A puppy and a bus"},
        Synonyms(SYNONYMS),
        objects={1: ["person", "hot dog"], 2: ["dog"]},
        references={2: ["dog in a street"]},
    )
    assert scores.chair_i == pytest.approx(2 / 5)
    assert scores.chair_s == 1.0
    assert scores.recall == 1.0
    assert scores.per_image[0]["mentioned"] == ["men", "hot dogs", "table"]
    assert scores.per_image[0]["hallucinated"] == ["table"]


def test_chair_files(tmp_path):
    (tmp_path / "synonyms.txt").write_text("person, man\ndog, puppy\n")
    coco = {
        "images": [{"id": 1}],
        "categories": [{"id": 18, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 18}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(coco))
    objects = read_objects(tmp_path / "instances.json")
    scores = score_chair({1: "a man with puppies"}, Synonyms.read(tmp_path / "synonyms.txt"), objects=objects)
    assert scores.summary() == {"num_images": 1, "chair_i": 0.5, "chair_s": 1.0, "recall": 1.0}
    with pytest.raises(DataError, match="image 5 has no known objects"):
        score_chair({5: "a dog"}, Synonyms(SYNONYMS), objects=objects)
    with pytest.raises(DataError, match="cannot be read"):
        Synonyms.read(tmp_path / "none.txt")
