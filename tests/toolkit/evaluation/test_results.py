"""Official result files: exact round trip, and every id that is doubled, missing or unknown is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from toolkit.errors import DataError
from toolkit.evaluation.results import read_results, result_kind, write_results


def test_files_are_in_the_official_formats(tmp_path: Path) -> None:
    write_results(tmp_path / "c.json", "caption", {7: "a dog", "x": "<b>\u2028"})
    write_results(tmp_path / "v.json", "vqa", [(1, "yes")])
    assert json.loads((tmp_path / "c.json").read_text("utf-8"))[0] == {"image_id": 7, "caption": "a dog"}
    assert json.loads((tmp_path / "v.json").read_text("utf-8")) == [{"question_id": 1, "answer": "yes"}]
    assert read_results(tmp_path / "c.json", "caption") == {7: "a dog", "x": "<b>\u2028"}
    assert result_kind(tmp_path / "c.json") == "caption"
    assert result_kind(tmp_path / "v.json") == "vqa"


def test_gzip_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.json.gz"
    path.write_bytes(gzip.compress(json.dumps([{"image_id": 1, "caption": ""}]).encode()))
    assert read_results(path, "caption", expected=[1]) == {1: ""}


def test_every_wrong_id_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps([{"image_id": 1, "caption": "a"}, {"image_id": 9, "caption": "c"}]))
    with pytest.raises(DataError) as caught:
        read_results(path, "caption", expected=[1, 2, 3])
    told = str(caught.value)
    assert "image_id 2 has references and no result" in told
    assert "image_id 3 has references and no result" in told
    assert "image_id 9 has a result and no references" in told
    assert caught.value.exit_code == 2


def test_a_doubled_id_is_named(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    path.write_text(json.dumps([{"question_id": 5, "answer": "a"}, {"question_id": 5, "answer": "b"}]))
    with pytest.raises(DataError, match="question_id 5 comes twice"):
        read_results(path, "vqa")


@pytest.mark.parametrize("content", ["{}", "[{", "[]", '[{"image_id": 4}]'])
def test_files_that_are_no_results(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(DataError):
        result_kind(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none.json"):
        read_results(tmp_path / "none.json", "vqa")
