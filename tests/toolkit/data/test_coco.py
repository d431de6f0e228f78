"""Caption files of the three shapes, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.data.coco import read_captions


def _read(tmp_path: Path, value: Any, name: str = "captions.json") -> tuple[list[Any], list[str]]:
    path = tmp_path / name
    path.write_text(json.dumps(value) if not isinstance(value, str) else value)
    problems: list[str] = []
    return read_captions(path, problems), [problem.removeprefix(str(path)) for problem in problems]


def test_coco_annotations(tmp_path: Path) -> None:
    items, problems = _read(
        tmp_path,
        {
            "images": [{"id": 7, "file_name": "b.png", "width": 4}, {"id": "x", "file_name": "a.png"}],
            "annotations": [
                {"image_id": "x", "caption": " a cat \n", "id": 1},
                {"image_id": 7, "caption": "two dogs", "id": 2},
                {"image_id": 7, "caption": "dogs", "id": 3},
            ],
        },
    )
    assert [(item.image_id, item.file_name, item.captions) for item in items] == [
        (7, "b.png", ("two dogs", "dogs")),
        ("x", "a.png", ("a cat",)),
    ]
    assert problems == []


def test_file_names_to_captions(tmp_path: Path) -> None:
    items, problems = _read(tmp_path, {"a.png": ["one"], "b.png": ["two", "three"]})
    assert [(item.image_id, item.file_name) for item in items] == [("a.png", "a.png"), ("b.png", "b.png")]
    assert problems == []


def test_rows(tmp_path: Path) -> None:
    rows = [
        {"image_id": 1, "file_name": "1.png", "captions": ["one"]},
        {"image_id": "2.png", "captions": ["two"]},
        {"image": "3.png", "captions": ["three"]},
    ]
    expected = [(1, "1.png"), ("2.png", "2.png"), ("3.png", "3.png")]
    as_lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    for value, name in ((rows, "a.json"), (as_lines, "a.jsonl")):
        items, problems = _read(tmp_path, value, name)
        assert [(item.image_id, item.file_name) for item in items] == expected
        assert problems == []


def test_every_fault_of_coco_annotations_is_reported(tmp_path: Path) -> None:
    items, problems = _read(
        tmp_path,
        {
            "images": [
                {"id": 1, "file_name": "a.png"},
                {"id": 1, "file_name": "b.png"},
                {"id": 2, "file_name": "c.png"},
                {"id": 3},
                {"id": None, "file_name": "d.png"},
                {"id": 4, "file_name": "e.png"},
            ],
            "annotations": [
                {"image_id": 1, "caption": "fine"},
                {"image_id": 3, "caption": "fine"},
                {"image_id": 4, "caption": " \n"},
                {"image_id": 4, "caption": 7},
                {"image_id": 99, "caption": "whose?"},
            ],
        },
    )
    assert [item.image_id for item in items] == [1]
    assert problems == [
        ": images entry 2: duplicate image id '1'; keep one entry for each picture",
        ": images entry 5: 'id' is 'None', expected a number or text",
        ": annotation 5: image id '99' is not in 'images'",
        ": image id 2: picture without reference captions; add one or remove the picture",
        ": image id 3: 'file_name' is 'None', expected the picture's path",
        ": image id 4: caption 1 is empty; write it or remove it",
        ": image id 4: caption 2 is '7', expected text",
    ]


def test_faults_of_the_other_shapes(tmp_path: Path) -> None:
    _, problems = _read(tmp_path, {"a.png": [], "b.png": "no list", "c\n.png": [""]})
    assert problems == [
        ": image 'a.png': picture without reference captions; add one or remove the picture",
        ": image 'b.png': picture without reference captions; add one or remove the picture",
        r": image 'c\n.png': caption 1 is empty; write it or remove it",
    ]
    row = {"image_id": 1, "file_name": "1.png", "captions": ["one"]}
    items, problems = _read(tmp_path, [row, row, 5, {"captions": ["x"]}, {"image_id": 9, "captions": ["x"]}])
    assert len(items) == 1
    assert [problem.replace(str(tmp_path), "") for problem in problems] == [
        ": row 2: duplicate image id '1' (first in /captions.json: row 1); put all captions of a picture into one row",
        ": row 3: expected an object, found '5'",
        ": row 4: 'image_id' is 'None', expected a number or text",
        ": row 5: 'file_name' is 'None', expected the picture's path",
    ]


def test_a_repeated_file_name_is_a_duplicate(tmp_path: Path, problems_of: Callable[..., list[str]]) -> None:
    [problem] = problems_of(lambda: _read(tmp_path, '{"a.png": ["x"], "a.png": ["y"]}'))
    assert "repeated key 'a.png'" in problem


@pytest.mark.parametrize("value", [3, "null", {"annotations": {}}])
def test_other_files_are_refused(tmp_path: Path, problems_of: Callable[..., list[str]], value: Any) -> None:
    [problem] = problems_of(lambda: _read(tmp_path, value))
    assert "not a caption file: expected COCO annotations" in problem


@pytest.mark.parametrize(
    ("name", "pictures", "captions"),
    [
        ("coco/captions_val2017_part.json.gz", 4392, 21972),
        ("coco/karpathy_test.json.gz", 5000, 25010),
        ("flickr30k/val.json.gz", 1014, 5070),
        ("images/flickr8k_captions.json", 464, 2320),
    ],
)
def test_public_files(shared_data: Path, name: str, pictures: int, captions: int) -> None:
    problems: list[str] = []
    items = read_captions(shared_data / name, problems)
    assert problems == []
    assert (len(items), sum(len(item.captions) for item in items)) == (pictures, captions)
