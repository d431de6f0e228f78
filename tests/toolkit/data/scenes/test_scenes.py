"""Scenes are deterministic, split by what they show, and written in the formats users know."""

import json
import subprocess
import sys

import pytest

from toolkit.data.scenes.drawing import draw_scene
from toolkit.data.scenes.gold import gold, mentions
from toolkit.data.scenes.language import references
from toolkit.data.scenes.pretraining import write_pretraining
from toolkit.data.scenes.questions import annotators, questions
from toolkit.data.scenes.sampling import sample_scenes
from toolkit.data.scenes.scene import (
    COLOURS,
    SHAPES,
    UNSEEN_COMBINATIONS,
    Group,
    Scene,
    read_scenes,
    split_of,
)
from toolkit.data.scenes.writing import write_sample, write_split
from toolkit.errors import DataError, UsageError


def scene(*groups: Group, layout="row"):
    return Scene(image_id=1, layout=layout, groups=groups, jitter=7)


RED = Group(1, "large", "red", "circle")
BLUE = Group(2, "small", "blue", "square")


def test_same_seed_same_files(tmp_path):
    for name in ("a", "b"):
        write_split(tmp_path / name, "val", seed=3, rows=12)
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 12 + 7
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_text_does_not_depend_on_the_hash_seed():
    """References and questions are the same in another process with another PYTHONHASHSEED."""
    code = (
        "from toolkit.data.scenes.sampling import sample_scenes as s\n"
        "from toolkit.data.scenes.language import references as r\n"
        "from toolkit.data.scenes.questions import questions as q\n"
        "from toolkit.data.scenes.raters import sample_pairs as p\n"
        "import sys\n"
        "x = list(s(0, 'train', 20))\n"
        "sys.stdout.write(repr([(r(i), q(i)) for i in x]) + repr(p(x, 0)))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_splits_are_disjoint_for_every_seed():
    """A scene's split is a hash of what it shows: no seed brings a test scene into training."""
    shown = {
        split: {s.canonical() for seed in range(3) for s in sample_scenes(seed, split, 300)}
        for split in ("train", "val", "test")
    }
    assert not shown["train"] & shown["test"]
    assert not shown["train"] & shown["val"]
    assert not shown["val"] & shown["test"]


def test_split_ignores_order_layout_and_jitter():
    same = [scene(RED, BLUE), scene(BLUE, RED), scene(RED, BLUE, layout="column")]
    assert len({split_of(s) for s in same}) == 1


def test_unseen_combinations_are_a_tenth_and_only_in_test(tmp_path):
    assert len(UNSEEN_COMBINATIONS) / (len(COLOURS) * len(SHAPES)) == pytest.approx(0.1)
    for split in ("train", "val", "test"):
        assert not any(s.has_unseen_combination for s in sample_scenes(0, split, 200))
    assert all(s.has_unseen_combination for s in sample_scenes(0, "test", 50, combinations="unseen"))
    with pytest.raises(UsageError, match="test split only"):
        write_sample(tmp_path, rows=1, split="train", combinations="unseen")


def test_no_training_text_names_an_unseen_combination(tmp_path):
    write_split(tmp_path / "train", "train", seed=0, rows=300)
    write_pretraining(tmp_path / "plain", seed=0, rows=100)
    text = "".join(p.read_text() for p in tmp_path.rglob("*.json*"))
    assert not [pair for pair in UNSEEN_COMBINATIONS if f"{pair[0]} {pair[1]}" in text]


def test_pictures_differ_when_order_size_or_count_differ():
    pictures = [
        draw_scene(s).tobytes()
        for s in (
            scene(RED, BLUE),
            scene(BLUE, RED),
            scene(RED, BLUE, layout="column"),
            scene(Group(1, "small", "red", "circle"), BLUE),
            scene(RED, Group(1, "small", "blue", "square")),
        )
    ]
    assert len(set(pictures)) == len(pictures)
    assert draw_scene(scene(RED)).size == (48, 48)


def test_references_are_five_true_and_mostly_different():
    for s in sample_scenes(1, "train", 200):
        captions = references(s)
        assert len(captions) == 5
        truths = [gold(s, caption) for caption in captions]
        assert min(truths) >= 0.5, (captions, truths)


def test_questions_cover_the_three_types_and_annotators_sometimes_disagree():
    import random

    rng, unanimous, total = random.Random(0), 0, 0
    for s in sample_scenes(0, "train", 200):
        asked = questions(s)
        assert [q.answer_type for q in asked] == ["yes/no", "number", "other"]
        for question in asked:
            answers = annotators(question, rng)
            assert len(answers) == 10
            unanimous += len(set(answers)) == 1
            total += 1
    assert 0.2 < unanimous / total < 0.8


def test_yes_and_no_are_balanced():
    answers = [questions(s)[0].answer for s in sample_scenes(0, "train", 2000)]
    assert 0.45 < answers.count("yes") / len(answers) < 0.55


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a large red circle and two small blue squares", 1.0),
        ("two small blue squares and a large red circle", 0.5),
        ("a large red circle to the left of two blue squares", 1.0),
        ("a large red circle to the right of two blue squares", 0.5),
        ("two blue squares right of a red circle", 0.5),
        ("a large red circle above two blue squares", 0.5),
        ("a red circle and two blue squares, one above the other", 0.5),
        ("a small red circle and two blue squares", 0.85),
        ("a red circle and a blue square", 0.75),
        ("a red circle", 2 / 3 * 0.5),
        ("a red ring and two blue squares", 0.25),
        ("", 0.0),
        ("no idea <b>at all</b>", 0.0),
    ],
)
def test_gold(text, expected):
    assert gold(scene(RED, BLUE), text) == pytest.approx(expected)


def test_gold_of_three_groups_counts_ordered_pairs():
    three = scene(RED, Group(1, "small", "green", "ring"), Group(1, "small", "black", "cross"))
    assert gold(three, "a red circle, a green ring and a black cross") == 1.0
    assert gold(three, "a red circle, a black cross and a green ring") == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_mentions_read_numbers_and_plurals():
    found = mentions("Two big orange crosses, black rings and a white cross")
    assert [(m.count, m.size, m.colour, m.shape) for m in found] == [
        (2, "large", "orange", "cross"),
        (2, None, "black", "ring"),
        (1, None, "white", "cross"),
    ]


def test_read_scenes_round_trip_and_error(tmp_path):
    written = write_split(tmp_path, "val", seed=0, rows=5)
    assert list(read_scenes(tmp_path / "scenes.jsonl").values()) == written
    (tmp_path / "bad.jsonl").write_text('{"image_id": 1}\n')
    with pytest.raises(DataError, match=r"bad.jsonl.*\n.*line 1"):
        read_scenes(tmp_path / "bad.jsonl")


def test_every_annotation_has_its_question(tmp_path):
    write_split(tmp_path, "val", seed=0, rows=10)
    asked = json.loads((tmp_path / "questions.json").read_text())["questions"]
    answered = json.loads((tmp_path / "annotations.json").read_text())["annotations"]
    assert [q["question_id"] for q in asked] == [a["question_id"] for a in answered]
    assert {a["answer_type"] for a in answered} == {"yes/no", "number", "other"}


def test_gold_pairs_are_the_same_pairs_without_slips(tmp_path):
    write_split(tmp_path, "val", seed=0, rows=200)
    noisy, true = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("pairs.jsonl", "pairs_gold.jsonl")
    )
    assert not any(row["flipped"] for row in true)
    for row, right in zip(noisy, true, strict=True):
        expected = (
            (right["rejected"], right["chosen"]) if row["flipped"] else (right["chosen"], right["rejected"])
        )
        assert (row["chosen"], row["rejected"]) == expected
    assert 0.05 < sum(row["flipped"] for row in noisy) / len(noisy) < 0.15
