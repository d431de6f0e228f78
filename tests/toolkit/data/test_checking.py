"""What `data check` reads in a folder and what it counts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.data.checking import check_path
from toolkit.data.scenes.writing import write_sample
from toolkit.errors import UsageError

Problems = Callable[[Callable[[], Any]], list[str]]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample data, eight pictures a split."""
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, seed=0, rows=8)
    return folder


@pytest.mark.parametrize("kind", ["caption", "vqa", "preference", "prompt"])
def test_the_sample_has_no_faults(sample: Path, kind: Any) -> None:
    checked = check_path(sample, kind)
    assert [file.path.parent.name for file in checked] == ["train", "val", "test"]
    assert all(dict(file.counts)["pictures"] == "8" for file in checked)


def test_counts_of_one_file(sample: Path) -> None:
    [file] = check_path(sample / "val" / "captions.json", "caption")
    counts = dict(file.counts)
    assert counts["captions"] == "40 (5.0 a picture)"
    assert sum(int(part.split()[1]) for part in counts["parts by image id"].split(", ")) == 8
    [file] = check_path(sample / "val", "vqa")
    assert dict(file.counts)["answers"].endswith("(10.0 a question)")
    assert "yes/no" in dict(file.counts)["answer types"]
    [file] = check_path(sample / "val", "preference")
    assert dict(file.counts)["chosen is longer"].endswith(" %")


def test_rows_without_anything_to_score_are_counted(tmp_path: Path, jsonl: Callable[..., Path]) -> None:
    path = jsonl(tmp_path / "p.jsonl", [{"prompt": "hi"}, {"prompt": "ho", "references": ["he"]}])
    assert dict(check_path(path, "prompt")[0].counts)["rows without references or answers"] == "1"


def test_leakage_between_splits(sample: Path, tmp_path: Path, problems_of: Problems) -> None:
    shutil.copytree(sample, tmp_path / "copy")
    shutil.copytree(sample / "train", tmp_path / "copy" / "test", dirs_exist_ok=True)
    problems = problems_of(lambda: check_path(tmp_path / "copy", "preference"))
    assert len(problems) == len((sample / "train" / "pairs.jsonl").read_text().splitlines())
    assert all("is in both train (sample" in problem for problem in problems)


def test_problems_of_every_split_together(sample: Path, tmp_path: Path, problems_of: Problems) -> None:
    shutil.copytree(sample, tmp_path / "copy")
    for split in ("train", "test"):
        next((tmp_path / "copy" / split / "images").iterdir()).unlink()
    assert len(problems_of(lambda: check_path(tmp_path / "copy", "caption"))) == 2


def test_folders_and_names(sample: Path, tmp_path: Path, problems_of: Problems) -> None:
    assert "captions.json: no such file" in problems_of(lambda: check_path(tmp_path, "caption"))[0]
    shutil.copy(sample / "val" / "captions.json", tmp_path / "c.json")
    assert len(check_path(tmp_path / "c.json", "caption", images=sample / "val" / "images")) == 1
    value = json.loads((sample / "val" / "questions.json").read_text())
    official = tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json"
    official.write_text(json.dumps(value))
    shutil.copy(sample / "val" / "annotations.json", tmp_path / "v2_mscoco_val2014_annotations.json")
    assert len(check_path(official, "vqa", images=sample / "val" / "images")) == 1


def test_options_that_do_not_apply_are_refused(sample: Path) -> None:
    with pytest.raises(UsageError, match="--images with --kind prompt"):
        check_path(sample / "val", "prompt", images=sample)
    with pytest.raises(UsageError, match="--annotations with --kind caption"):
        check_path(sample / "val", "caption", annotations=sample)
    with pytest.raises(UsageError, match="add: --annotations FILE"):
        check_path(sample / "val" / "captions.json", "vqa")
