"""chair and object_recall equal the metric on single captions, and say nothing where nothing is annotated."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toolkit.config.schema import RewardTerm
from toolkit.errors import DataError
from toolkit.metrics.chair import Synonyms, score_chair
from toolkit.rewards.base import RewardBatch
from toolkit.rewards.building import build_reward
from toolkit.rewards.objects import ChairReward, ObjectRecallReward

Batches = Callable[..., RewardBatch]

OBJECTS = {"1": ["dog", "frisbee"], "2": ["person", "hot dog", "person"], "3": []}
TEXTS = ["two puppies and a cat", "a woman eats a hot dog", "a dog", "grass", "a disc, a dog, a dog"]
IDS = ["1", "2", "3", "1", "1"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "objects.json").write_text(json.dumps(OBJECTS))
    (tmp_path / "synonyms.txt").write_text(
        "dog, puppy\ncat, kitten\nfrisbee, disc\nperson, woman, man\nhot dog\n"
    )
    return {"objects": str(tmp_path / "objects.json"), "synonyms": str(tmp_path / "synonyms.txt")}


def test_both_are_the_metric_of_one_caption(files: dict[str, Any], batch_of: Batches) -> None:
    batch = batch_of(TEXTS, sample_ids=IDS)
    invented, recall = ChairReward(**files)(batch), ObjectRecallReward(**files)(batch)
    synonyms = Synonyms.read(files["synonyms"])
    for place, (image_id, text) in enumerate(zip(IDS, TEXTS, strict=True)):
        direct = score_chair({image_id: text}, synonyms, objects=OBJECTS)
        assert invented.scores[place] == -direct.chair_i
        if OBJECTS[image_id]:
            assert recall.scores[place] == direct.recall
    assert invented.scores.tolist() == [-0.5, 0.0, -1.0, 0.0, 0.0]
    assert recall.applies.tolist() == [
        True,
        True,
        False,
        True,
        True,
    ]  # picture 3 holds nothing to be recalled
    assert recall.scores[[0, 1, 3, 4]].tolist() == [0.5, 1.0, 0.0, 1.0]


def test_questions_and_pictures_without_annotation_are_left_out(
    files: dict[str, Any], batch_of: Batches
) -> None:
    batch = batch_of(
        ["a dog", "a dog", "dog"], sample_ids=["1", "9", "1"], tasks=["caption", "caption", "vqa"]
    )
    for reward in (ChairReward(**files), ObjectRecallReward(**files)):
        output = reward(batch)
        assert output.applies.tolist() == [True, False, False]
        assert not output.failed.any()


def test_ids_may_be_numbers_and_annotations_coco_instances(
    files: dict[str, Any], tmp_path: Path, batch_of: Batches
) -> None:
    instances = {
        "images": [{"id": 1}],
        "categories": [{"id": 7, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 7}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    batch = batch_of(["a dog and a cat"])
    batch = replace(batch, rows=[replace(batch.rows[0], image_id=1)])
    for name in ("instances.json", "objects.json"):
        options = files | {"objects": str(tmp_path / name)}
        assert ChairReward(**options)(batch).scores.tolist() == [-0.5]


def test_references_count_where_asked_for(files: dict[str, Any], batch_of: Batches) -> None:
    batch = batch_of(["a cat"], sample_ids=["1"])
    batch = replace(batch, rows=[replace(batch.rows[0], references=("a dog looks at a kitten",))])
    assert ChairReward(**files)(batch).scores.tolist() == [-1.0]
    assert ChairReward(**files, references=True)(batch).scores.tolist() == [0.0]
    assert ObjectRecallReward(**files, references=True)(batch).scores.tolist() == [1 / 3]


def test_in_a_composite(files: dict[str, Any], batch_of: Batches) -> None:
    specs = [
        {"term": "chair", "weight": 2.0, "options": files},
        {"term": "object_recall", "options": files},
    ]
    reward = build_reward([RewardTerm.model_validate(spec) for spec in specs], references={})
    output = reward(batch_of(TEXTS, sample_ids=IDS))
    assert output.scores.tolist() == [-0.5, 1.0, -2.0, 0.0, 1.0]


def test_a_file_that_is_no_annotation_is_named(files: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "objects.json").write_text("[]")
    spec = RewardTerm.model_validate({"term": "chair", "options": files})
    with pytest.raises(DataError, match="expected COCO instances"):
        build_reward([spec], references={})
