"""Files that hold questions with their answers, in the words of several benchmarks."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from toolkit.data.answered import read_answered
from toolkit.errors import DataError


def read(path: Path, value: object) -> tuple[list, list[str]]:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    problems: list[str] = []
    return read_answered(path, problems), problems


def test_labels_become_yes_and_no(tmp_path: Path) -> None:
    rows = [
        {"image": "a.png", "sentence": "x", "label": label}
        for label in (1, 0, True, "false", "yes", "TRUE", "maybe")
    ]
    items, problems = read(tmp_path / "rows.json", rows)
    assert problems == []
    assert [item.answers for item in items] == [
        (a,) for a in ("yes", "no", "yes", "no", "yes", "yes", "maybe")
    ]
    assert [item.question_id for item in items] == [1, 2, 3, 4, 5, 6, 7]
    assert items[0].image_id == "a.png"


def test_what_is_wrong_is_named_and_left_out(tmp_path: Path) -> None:
    rows = [
        {"question_id": 1, "image": "a.png", "question": "x", "answer": "y"},
        {"question_id": 1, "image": "a.png", "question": "x", "answer": "y"},
        {"question_id": 2, "image": "a.png", "question": " ", "answers": [" "]},
        {"question_id": 3, "question": "x", "answer": "y"},
        "no row",
    ]
    items, problems = read(tmp_path / "rows.json", rows)
    assert [item.question_id for item in items] == [1]
    assert len(problems) == 5
    for text in ("duplicate question id", "no question", "no answers", "no picture", "expected an object"):
        assert any(text in problem for problem in problems), text


def test_what_holds_no_rows_is_refused(tmp_path: Path) -> None:
    for value in ("{", '"text"', "1"):
        with pytest.raises(DataError):
            read(tmp_path / "rows.json", value)


def test_types_are_kept(tmp_path: Path) -> None:
    rows = {"q1": {"imageId": "9", "question": "x", "answer": "y", "types": {"structural": "query"}}}
    (item,), _ = read(tmp_path / "rows.json", rows)
    assert item.meta == {"question_id": "q1", "question_type": "query"}
    assert item.file_name is None
    assert item.image_id == "9"


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("pope/coco_pope_popular.json.gz", 3000),
        ("vqa/vsr_random_dev.jsonl.gz", None),
        ("nlvr/dev.jsonl.gz", 5934),
    ],
)
def test_published_files(shared_data: Path, name: str, number: int | None) -> None:
    problems: list[str] = []
    items = read_answered(shared_data / name, problems)
    with gzip.open(shared_data / name, "rt", encoding="utf-8") as stream:
        lines = sum(bool(line.strip()) for line in stream)
    assert problems == []
    assert len(items) == lines == (number or lines)
    assert {item.answers for item in items} == {("yes",), ("no",)}
