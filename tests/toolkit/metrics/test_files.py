"""Reference and result files in every accepted form, and what is wrong with others."""

from __future__ import annotations

import gzip
import json

import pytest

from toolkit.errors import DataError
from toolkit.metrics.files import (
    align_ids,
    read_answers,
    read_captions,
    read_references,
    read_rows,
    write_jsonl,
)

EXPECTED = {1: ["a dog", "the dog"], 2: ["a cat"]}
COCO = {"info": {}, "images": [{"id": 1}], "annotations": [
    {"id": 9, "image_id": 1, "caption": "a dog"},
    {"id": 8, "image_id": 2, "caption": "a cat"},
    {"id": 7, "image_id": 1, "caption": "the dog"},
]}  # fmt: skip
ROWS = [
    {"image_id": 1, "captions": ["a dog", "the dog"], "file": "x.jpg"},
    {"image_id": 2, "captions": ["a cat"]},
]


@pytest.mark.parametrize("content", [COCO, ROWS, {"1": ["a dog", "the dog"], "2": ["a cat"]}])
@pytest.mark.parametrize("name", ["r.json", "r.json.gz"])
def test_references(tmp_path, content, name):
    data = json.dumps(content).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert align_ids(read_references(tmp_path / name), {1: "", 2: ""}) == EXPECTED


def test_references_as_json_lines(tmp_path):
    write_jsonl(tmp_path / "r.jsonl", ROWS)
    assert read_references(tmp_path / "r.jsonl") == EXPECTED
    write_jsonl(tmp_path / "one.jsonl", COCO["annotations"])
    assert read_references(tmp_path / "one.jsonl") == EXPECTED


def test_results(tmp_path):
    (tmp_path / "c.json").write_text('[{"image_id": 5, "caption": "a\\u2028b", "extra": 1}]')
    assert read_captions(tmp_path / "c.json") == {5: "a\u2028b"}
    (tmp_path / "a.jsonl").write_text('{"question_id": "q", "answer": ""}\n\n')
    assert read_answers(tmp_path / "a.jsonl") == {"q": ""}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", "[{", "line 1: malformed JSON"),
        ("x.jsonl", '{"image_id": 1, "caption": "a"}\n{oops}\n', "line 2: malformed JSON"),
        (
            "x.json",
            '[{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}]',
            "row 2: image_id 1 comes twice",
        ),
        ("x.json", '[{"image_id": 1}]', "row 1: expected"),
        ("x.json", '[{"image_id": true, "caption": "a"}]', "row 1: expected"),
        ("x.json", '"text"', "expected rows"),
    ],
)
def test_broken_results(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_captions(tmp_path / name)


def test_broken_references(tmp_path):
    (tmp_path / "r.json").write_text('{"1": [], "2": "text", "3": ["a"]}')
    with pytest.raises(DataError, match="2 problems"):
        read_references(tmp_path / "r.json")
    (tmp_path / "d.json").write_text(json.dumps([ROWS[0], ROWS[0]]))
    with pytest.raises(DataError, match="image 1 comes twice"):
        read_references(tmp_path / "d.json")
    with pytest.raises(DataError, match="No such file"):
        read_references(tmp_path / "none.json")
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b"[1, 2, 3]")[:-6])
    with pytest.raises(DataError, match="damaged"):
        read_references(tmp_path / "cut.json.gz")


def test_rows_under_a_key(tmp_path):
    (tmp_path / "q.json").write_text('{"questions": [{"question_id": 1}]}')
    assert read_rows(tmp_path / "q.json", "questions", ["question_id"]) == [{"question_id": 1}]
    with pytest.raises(DataError, match="row 1: expected an object with label"):
        read_rows(tmp_path / "q.json", "questions", ["label"])
