"""Comparison of folders and files: same numbers as the summary, clear words where nothing can be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from toolkit.errors import DataError, UsageError
from toolkit.evaluation.compare import compare, comparison_table

REFERENCES = {"1": ["a red dog", "the dog is red"], "2": ["two cats", "a pair of cats"], "3": ["a blue bus"]}


def results(path: Path, *captions: str) -> Path:
    path.write_text(
        json.dumps([{"image_id": k, "caption": text} for k, text in enumerate(captions, start=1)])
    )
    return path


def test_systems_of_an_evaluation_give_the_summarys_difference(evaluated: Path) -> None:
    folder = evaluated / "systems"
    found = compare(folder / "sft", folder / "base", resamples=40)
    summary = json.loads((evaluated / "summary.json").read_text())["differences"]["sft_minus_base"]
    assert len(found) == 1
    for name in ("cider", "reward", "gold", "vqa_accuracy"):
        difference = found[0].scores[name][2]
        assert difference.as_dict() == pytest.approx(summary[name])


def test_evaluation_folders_are_paired_by_name(evaluated: Path) -> None:
    found = compare(evaluated, evaluated.parent, resamples=5)
    assert [Path(comparison.a).name for comparison in found] == ["base", "sft"]
    assert all(
        difference.mean == 0.0 for comparison in found for _, _, difference in comparison.scores.values()
    )
    assert "within chance" in comparison_table(found)


def test_folders_of_one_checkpoint_each_are_paired(evaluated: Path, tmp_path: Path) -> None:
    for name, dropped in (("a", "base"), ("b", "sft")):
        shutil.copytree(evaluated, tmp_path / name)
        shutil.rmtree(tmp_path / name / "systems" / dropped)
    found = compare(tmp_path / "a", tmp_path / "b", resamples=5)
    assert [(Path(pair.a).name, Path(pair.b).name) for pair in found] == [("sft", "base")]


def test_result_files_need_references(tmp_path: Path) -> None:
    a = results(tmp_path / "a.json", "a red dog", "two cats", "a blue bus")
    b = results(tmp_path / "b.json", "a dog", "cats", "a bus")
    with pytest.raises(UsageError, match=r"brings no references\.json"):
        compare(a, b)
    references = tmp_path / "r.json"
    references.write_text(json.dumps(REFERENCES))
    found = compare(a, b, references=references, resamples=20)[0]
    assert found.scores["cider"][2].mean > 0
    assert found.num_images == 3
    told = found.as_dict()["scores"]["cider"]
    assert told["difference"]["mean"] == pytest.approx(told["a"]["mean"] - told["b"]["mean"])


def test_answers_are_compared_with_annotations(tmp_path: Path) -> None:
    rows = [
        {"question_id": k, "image_id": k, "answers": [{"answer_id": n, "answer": "yes"} for n in range(10)]}
        for k in (1, 2)
    ]
    (tmp_path / "annotations.json").write_text(json.dumps({"annotations": rows}))
    for name, answer in (("a", "yes"), ("b", "no")):
        text = json.dumps([{"question_id": k, "answer": answer} for k in (1, 2)])
        (tmp_path / f"{name}.json").write_text(text)
    found = compare(
        tmp_path / "a.json", tmp_path / "b.json", references=tmp_path / "annotations.json", resamples=10
    )
    assert found[0].scores["vqa_accuracy"][2].as_dict() == {"mean": 100.0, "low": 100.0, "high": 100.0}


def test_what_cannot_be_compared_says_so(tmp_path: Path, evaluated: Path) -> None:
    with pytest.raises(DataError, match="no results here"):
        compare(tmp_path, tmp_path)
    captions = results(tmp_path / "a.json", "x", "y")
    answers = tmp_path / "v.json"
    answers.write_text(json.dumps([{"question_id": 1, "answer": "yes"}]))
    with pytest.raises(UsageError, match="nothing to compare"):
        compare(captions, answers)
    with pytest.raises(UsageError, match="nothing to pair"):
        compare(evaluated, captions)
    references = tmp_path / "r.json"
    references.write_text(json.dumps(REFERENCES))
    with pytest.raises(DataError, match="image_id '3' has references and no result"):
        compare(captions, captions, references=references)


def test_an_edited_result_file_is_scored_as_it_is(evaluated: Path, tmp_path: Path) -> None:
    copy = tmp_path / "eval"
    shutil.copytree(evaluated, copy)
    path = copy / "systems" / "base" / "captions_results.json"
    rows = json.loads(path.read_text())
    references = {
        row["image_id"]: row["captions"] for row in json.loads((copy / "references.json").read_text())
    }
    path.write_text(json.dumps([{**row, "caption": references[row["image_id"]][0]} for row in rows]))
    found = compare(copy / "systems" / "base", evaluated / "systems" / "base", resamples=10)[0]
    assert found.scores["cider"][2].low > 1.0


def test_groups_of_images_from_a_file(tmp_path: Path) -> None:
    references = {
        str(k): [f"a {w} dog", f"the dog is {w}"] for k, w in enumerate(["red", "blue", "big", "old"], 1)
    }
    (tmp_path / "r.json").write_text(json.dumps(references))
    a = results(tmp_path / "a.json", "a red dog", "a blue dog", "a cat", "a bus")
    b = results(tmp_path / "b.json", "a cat", "a bus", "a big dog", "the dog is old")
    rows = [{"image_id": k, "light": "day" if k < 3 else "night"} for k in range(1, 5)]
    (tmp_path / "groups.json").write_text(json.dumps(rows))
    options = {"references": tmp_path / "r.json", "resamples": 30, "groups": tmp_path / "groups.json"}
    found = compare(a, b, group_by="light", **options)[0]
    assert list(found.groups) == ["day", "night"]
    day, night = (found.groups[name]["scores"]["cider"]["difference"] for name in ("day", "night"))
    assert found.groups["day"]["n"] == 2
    assert day["low"] > 0 > night["high"]
    assert (day["mean"] + night["mean"]) / 2 == pytest.approx(found.scores["cider"][2].mean)
    assert "day (2)" in comparison_table([found])
    assert json.loads(json.dumps(found.as_dict()))["groups"]["day"]["scores"]["cider"]["p_value"] < 0.1
    with pytest.raises(UsageError, match="there are light"):
        compare(a, b, group_by="weather", **options)
    (tmp_path / "groups.json").write_text(json.dumps(rows[:3]))
    with pytest.raises(DataError, match="4 has no light"):
        compare(a, b, group_by="light", **options)


def test_groups_of_questions_from_the_annotations(evaluated: Path) -> None:
    folder = evaluated / "systems"
    found = compare(folder / "sft", folder / "base", resamples=20, group_by="question_type")[0]
    rows = json.loads((evaluated / "annotations.json").read_text())["annotations"]
    kinds = {row["question_id"]: row["question_type"] for row in rows}
    assert set(found.groups) == set(kinds.values())
    lines = (folder / "sft" / "per_question.jsonl").read_text().splitlines()
    for kind, part in found.groups.items():
        own = [row["accuracy"] for row in map(json.loads, lines) if kinds[row["question_id"]] == kind]
        assert part["n"] == len(own)
        assert part["scores"]["vqa_accuracy"]["a"]["mean"] == pytest.approx(sum(own) / len(own))


def test_groups_of_images_from_what_the_evaluation_stored(evaluated: Path) -> None:
    folder = evaluated / "systems"
    found = compare(folder / "sft", folder / "base", resamples=5, group_by="mean_tokens")[0]
    assert sum(part["n"] for part in found.groups.values()) == found.num_images
