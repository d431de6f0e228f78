"""Sources of a recipe become rows in a fixed order; everything wrong is reported at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.config.schema import CaptionSource, DataSpec, RowsSource, VqaSource
from toolkit.data.sources import load_parts, load_preference_rows, load_prompt_rows, load_sft_rows
from toolkit.data.splits import part_of
from toolkit.records import image_prompt

Problems = Callable[[Callable[[], Any]], list[str]]
_CAPTIONS = CaptionSource(kind="caption", captions="captions.json", images="images")
_VQA = VqaSource(
    kind="vqa", questions="questions.json", annotations="annotations.json", images="images", suffix=" Short."
)
_PAIRS = RowsSource(kind="rows", file="pairs.jsonl")


@pytest.fixture
def root(tmp_path: Path, picture: Callable[..., Path], jsonl: Callable[..., Path]) -> Path:
    """Twelve pictures with captions, questions and pairs."""
    ids = range(12)
    for number in ids:
        picture(tmp_path / f"images/{number}.png", (number, 0, 0))
    captions = [{"image_id": n, "caption": f"{word} {n}"} for n in ids for word in ("picture", "number")]
    images = [{"id": n, "file_name": f"{n}.png"} for n in ids]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    questions = [{"question_id": 100 + n, "image_id": n, "question": "Which?"} for n in ids]
    (tmp_path / "questions.json").write_text(json.dumps({"questions": questions}))
    answers = [{"answer": "zero"}, {"answer": "one"}, {"answer": "one"}]
    annotations = [
        {"question_id": 100 + n, "image_id": n, "answers": answers, "answer_type": "other"} for n in ids
    ]
    (tmp_path / "annotations.json").write_text(json.dumps({"annotations": annotations}))
    pair = {"prompt": "Describe.", "chosen": "good", "rejected": "bad"}
    jsonl(tmp_path / "pairs.jsonl", [pair | {"images": [f"images/{n}.png"]} for n in ids])
    return tmp_path


def test_prompt_rows(root: Path) -> None:
    rows = load_prompt_rows([_CAPTIONS, _VQA], root)
    assert [row.sample_id for row in rows] == [f"caption/{n}" for n in range(12)] + [
        f"vqa/{100 + n}" for n in range(12)
    ]
    assert rows[3].references == ("picture 3", "number 3")
    assert rows[3].images == ((root / "images/3.png").resolve(),)
    assert rows[3].prompt == image_prompt("Describe the image.")
    assert rows[15].prompt == image_prompt("Which? Short.")
    assert (rows[15].answers, rows[15].image_id) == (("zero", "one", "one"), 3)
    assert rows[15].meta == {"question_id": 103, "answer_type": "other"}
    assert rows == load_prompt_rows([_CAPTIONS, _VQA], root)


def test_sft_rows(root: Path) -> None:
    rows = load_sft_rows(
        [_CAPTIONS.model_copy(update={"limit": 2}), _VQA.model_copy(update={"limit": 1})], root
    )
    assert [(row.sample_id, row.completion) for row in rows] == [
        ("caption/0/1", "picture 0"),
        ("caption/0/2", "number 0"),
        ("caption/1/1", "picture 1"),
        ("caption/1/2", "number 1"),
        ("vqa/100", "one"),
    ]


def test_preference_rows(root: Path) -> None:
    rows = load_preference_rows([_PAIRS.model_copy(update={"limit": 3})], root)
    assert [(row.sample_id, row.chosen) for row in rows] == [(f"pairs:{n}", "good") for n in (1, 2, 3)]


def test_parts_are_disjoint_and_complete(root: Path) -> None:
    found = []
    for part in ("train", "val", "test"):
        source = _CAPTIONS.model_copy(update={"part": part})
        if ids := [n for n in range(12) if part_of(n) == part]:
            assert [row.image_id for row in load_prompt_rows([source], root)] == ids
        found += ids
    assert sorted(found) == list(range(12))


def test_ids_that_two_sources_share_are_told_apart(root: Path) -> None:
    again = _CAPTIONS.model_copy(update={"prompt": "What is this?", "limit": 1})
    rows = load_prompt_rows([_CAPTIONS.model_copy(update={"limit": 1}), again], root)
    assert [row.sample_id for row in rows] == ["caption/0", "caption/0@2"]


def test_train_and_val(root: Path) -> None:
    train, val = (_CAPTIONS.model_copy(update={"part": part}) for part in ("train", "test"))
    rows, held_out = load_parts(DataSpec(root=str(root), train=[train], val=[val]), load_prompt_rows)
    assert {row.image_id for row in rows} | {row.image_id for row in held_out} <= set(range(12))
    assert load_parts(DataSpec(root=str(root), train=[_PAIRS]), load_preference_rows)[1] == []


def test_leakage_between_train_and_val(root: Path, problems_of: Problems) -> None:
    spec = DataSpec(root=str(root), train=[_CAPTIONS], val=[_VQA.model_copy(update={"limit": 2})])
    assert problems_of(lambda: load_parts(spec, load_prompt_rows)) == [
        "image id '0' is in both train (sample 'caption/0') and val (sample 'vqa/100')",
        "image id '1' is in both train (sample 'caption/1') and val (sample 'vqa/101')",
    ]
    assert len(problems_of(lambda: load_parts(spec, load_sft_rows))) == 2


def test_all_problems_of_all_sources_at_once(root: Path, problems_of: Problems) -> None:
    (root / "images/0.png").unlink()
    (root / "images/1.png").write_text("no picture")
    (root / "images/2.png").write_bytes((root / "images/2.png").read_bytes()[:-30])
    with (root / "pairs.jsonl").open("a") as file:
        file.write('{"prompt": "x"\n')
    value = json.loads((root / "captions.json").read_text())
    value["annotations"][7]["caption"] = ""
    (root / "captions.json").write_text(json.dumps(value))
    spec = DataSpec(root=str(root), train=[_PAIRS], val=[_CAPTIONS])
    problems = problems_of(lambda: load_parts(spec, load_preference_rows))
    assert [problem.replace(f"{root}/", "").split(" (")[0] for problem in problems] == [
        "pairs.jsonl:13: malformed JSON in column 15: Expecting ',' delimiter",
        "pairs.jsonl:1: images/0.png: no such file",
        "pairs.jsonl:2: images/1.png: not an image file",
        "pairs.jsonl:3: images/2.png: truncated or damaged image",
        "a source of kind 'caption' holds no preferences; expected kind 'rows' with a file of preference rows",
    ]
    problems = problems_of(
        lambda: load_prompt_rows([_CAPTIONS, _VQA, RowsSource(kind="rows", file="no.jsonl")], root)
    )
    assert [problem.replace(f"{root}/", "").split(" (")[0] for problem in problems] == [
        "captions.json: image id 3: caption 2 is empty; write it or remove it",
        "questions.json: question id 100: no file in images for image id '0'; expected one picture named by it",
        "no.jsonl: no such file",
        "captions.json: image id 0: images/0.png: no such file",
        "captions.json: image id 1: images/1.png: not an image file",
        "captions.json: image id 2: images/2.png: truncated or damaged image",
    ]


def test_pictures_that_are_not_used_are_not_opened(root: Path) -> None:
    (root / "images/5.png").unlink()
    assert len(load_prompt_rows([_CAPTIONS.model_copy(update={"limit": 5})], root)) == 5


def test_names_that_leave_the_folder(root: Path, problems_of: Problems) -> None:
    (root / "c.json").write_text(json.dumps({"../captions.json": ["x"]}))
    [problem] = problems_of(lambda: load_sft_rows([CaptionSource(kind="caption", captions="c.json")], root))
    assert "c.json: image '../captions.json': picture '../captions.json': '..' in the path" in problem


def test_nothing_left(root: Path, problems_of: Problems) -> None:
    (root / "c.json").write_text(json.dumps({"0.png": ["x"]}))
    part = next(part for part in ("train", "val", "test") if part != part_of("0.png"))
    source = CaptionSource(kind="caption", captions="c.json", images="images", part=part)
    [problem] = problems_of(lambda: load_sft_rows([source], root))
    assert problem.endswith(f"c.json: no pictures in the part '{part}'; expected at least one")
    (root / "empty.jsonl").write_text("\n")
    [problem] = problems_of(lambda: load_prompt_rows([RowsSource(kind="rows", file="empty.jsonl")], root))
    assert problem.endswith("empty.jsonl: no rows; expected at least one")


def test_one_image_id_for_two_pictures(root: Path, problems_of: Problems, jsonl: Callable[..., Path]) -> None:
    jsonl(root / "p.jsonl", [{"prompt": "x", "image": f"images/{n}.png", "image_id": 1} for n in (1, 2)])
    [problem] = problems_of(lambda: load_prompt_rows([RowsSource(kind="rows", file="p.jsonl")], root))
    assert "p.jsonl:2: image id '1' stands for another picture than in" in problem


def test_photographs(shared_data: Path) -> None:
    source = CaptionSource(kind="caption", captions="flickr8k_captions.json", images="flickr8k")
    assert len(load_sft_rows([source], shared_data / "images")) == 2320
    mini = CaptionSource(kind="caption", captions="coco_mini_captions.json", images="coco_mini")
    assert len(load_prompt_rows([mini], shared_data / "images")) == 76
