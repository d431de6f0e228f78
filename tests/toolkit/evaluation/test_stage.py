"""The eval stage on a real tiny model: summary, files, resumption, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.config.schema import DecodingSpec
from toolkit.errors import DataError, Interrupted, RecipeError, RunFailed
from toolkit.evaluation.stage import evaluate_systems
from toolkit.evaluation.summary import add_seconds, summary_table
from toolkit.runs.directory import RunDirectory

from .conftest import IMAGES, LengthReward, evaluate, recipe_for

COLUMNS = {"cider", "bleu_4", "rouge_l", "vqa_accuracy", "reward", "gold", "mean_tokens", "n"}


@pytest.fixture
def summary(evaluated: Path) -> dict[str, Any]:
    return json.loads((evaluated / "summary.json").read_text())


def test_summary_holds_what_is_asked_for(summary: dict[str, Any]) -> None:
    assert list(summary["rows"]) == ["blind", "human", "base", "sft"]
    for row in summary["rows"].values():
        assert row.keys() >= COLUMNS
        assert all(row[name] is not None for name in COLUMNS)
        assert row["n"] == IMAGES
    assert set(summary["differences"]) == {"sft_minus_base", "human_minus_blind"}
    for values in summary["differences"].values():
        assert list(values) == ["cider", "reward", "gold", "vqa_accuracy"]
        for found in values.values():
            assert found["low"] <= found["mean"] <= found["high"]
    assert summary["reward_model"]["n"] > 0
    assert summary["seconds"] == {}


def test_people_beat_a_random_model(summary: dict[str, Any]) -> None:
    rows = summary["rows"]
    for name in ("cider", "vqa_accuracy", "gold"):
        assert rows["human"][name] > rows["base"][name]
    assert rows["blind"]["cider"] >= rows["sft"]["cider"] - 0.5
    difference = summary["differences"]["human_minus_blind"]["cider"]
    assert difference["mean"] == pytest.approx(rows["human"]["cider"] - rows["blind"]["cider"])


def test_blind_is_the_better_of_its_candidates_for_each_task(summary: dict[str, Any]) -> None:
    told = summary["baselines"]["blind"]
    for task, key in (("caption", "cider"), ("vqa", "vqa_accuracy")):
        best = max(row[key] for row in told["candidates"].values())
        assert told["candidates"][told[task]][key] == summary["rows"]["blind"][key] == best


def test_scores_can_be_recomputed_from_the_files(evaluated: Path, summary: dict[str, Any]) -> None:
    from toolkit.metrics import score_captions, score_vqa
    from toolkit.metrics.files import read_answers, read_captions, read_references, read_rows

    folder = evaluated / "systems" / "base"
    captions = score_captions(
        read_references(evaluated / "references.json"), read_captions(folder / "captions_results.json")
    )
    assert summary["rows"]["base"]["cider"] == pytest.approx(captions.corpus["cider"])
    asked = read_rows(evaluated / "questions.json", "questions", ("question_id",))
    annotated = read_rows(evaluated / "annotations.json", "annotations", ("question_id", "answers"))
    vqa = score_vqa(asked, annotated, read_answers(folder / "vqa_results.json"))
    assert round(summary["rows"]["base"]["vqa_accuracy"], 2) == vqa.accuracy
    lines = (folder / "per_image.jsonl").read_text().split("\n")[:-1]
    rewards = [json.loads(line)["reward"] for line in lines]
    assert summary["rows"]["base"]["reward"] == pytest.approx(np.mean(rewards))


def test_samples_hold_pictures_and_every_system(evaluated: Path) -> None:
    samples = json.loads((evaluated / "samples" / "samples.json").read_text())
    assert len(samples) == IMAGES
    for sample in samples:
        assert (evaluated / "samples" / sample["image"]).is_file()
        assert set(sample["systems"]) == {"base", "sft"}
        assert set(sample["systems"]["base"]["scores"]) == {"cider", "reward", "gold"}


def test_the_table_shows_every_row_and_difference(summary: dict[str, Any]) -> None:
    table = summary_table(summary)
    for word in ("blind", "human", "base", "sft_minus_base", "CIDEr", "reward model on"):
        assert word in table
    assert max(map(len, table.splitlines())) <= 100


def test_the_table_counts_questions_where_there_are_no_captions() -> None:
    row = {"vqa_accuracy": 50.0, "n": 0, "n_questions": 7}
    assert summary_table({"rows": {"m": row}}).splitlines()[1].split() == ["m", "50.00", "7"]


def test_seconds_are_added_afterwards(evaluated: Path, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text((evaluated / "summary.json").read_text())
    add_seconds(path, {"sft": 12.345})
    assert json.loads(path.read_text())["seconds"] == {"sft": 12.3}


def test_a_stopped_evaluation_resumes_to_the_same_summary(
    scenes: Path, checkpoint: Path, tmp_path: Path
) -> None:
    whole = evaluate(recipe_for(scenes, tmp_path / "whole", {"base": checkpoint}))
    recipe = recipe_for(scenes, tmp_path / "parts", {"base": checkpoint})
    run = RunDirectory(recipe.run.output_dir)
    run.prepare(recipe)
    run.stop.request()
    with pytest.raises(Interrupted, match="evaluation stopped"):
        evaluate_systems(recipe, run)
    run.release()
    kept = (tmp_path / "parts" / "systems" / "base" / "predictions.jsonl").read_text().splitlines()
    assert len(kept) == 1 + recipe.generation.batch_size
    assert evaluate(recipe) == whole
    assert not (tmp_path / "parts" / "systems" / "blind-shuffled").exists()


def test_scores_without_meaning_are_null(scenes: Path, checkpoint: Path, tmp_path: Path) -> None:
    summary = evaluate(recipe_for(scenes, tmp_path / "out", {"base": checkpoint}))
    assert summary["rows"]["base"]["reward"] is None
    assert summary["rows"]["base"]["gold"] is None
    assert summary["reward_model"] is None


def test_a_failing_reward_stops_the_stage(scenes: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=f"no score for {IMAGES} rows"):
        evaluate(recipe_for(scenes, tmp_path / "out", {"base": checkpoint}), reward=LengthReward(fail=True))


def test_names_are_checked_before_anything_is_loaded(scenes: Path, tmp_path: Path) -> None:
    recipe = recipe_for(
        scenes,
        tmp_path / "out",
        {"human": Path("none"), "a/b": Path("none")},
        blind_from="sft",
        differences=[("ppo", "human")],
        preference_pairs=["x"],
    )
    with pytest.raises(RecipeError) as caught:
        evaluate(recipe)
    told = str(caught.value)
    for word in (
        "'human' is the name of a baseline",
        "'a/b' cannot name a folder",
        "no system is named 'sft'",
    ):
        assert word in told
    assert "'ppo'" in told
    assert "preference_pairs: expected a reward_model" in told


def test_scenes_of_another_split_are_refused(scenes: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "scenes.jsonl").write_text("")
    recipe = recipe_for(scenes, tmp_path / "out", {"base": checkpoint}, scenes=str(tmp_path / "scenes.jsonl"))
    with pytest.raises(DataError, match="has no scene"):
        evaluate(recipe)


def test_samples_bring_their_diversity(scenes: Path, checkpoint: Path, tmp_path: Path) -> None:
    decoding = DecodingSpec(max_new_tokens=5, batch_size=8, strategy="sample:1,3")
    recipe = recipe_for(scenes, tmp_path / "eval", {"base": checkpoint})
    summary = evaluate(recipe.model_copy(update={"generation": decoding}))
    rows = json.loads((tmp_path / "eval" / "systems" / "base" / "captions_samples.json").read_text())
    assert len(rows) == 3 * summary["rows"]["base"]["n"]
    told = summary["diversity"]["base"]
    assert told["num_captions"] == len(rows)
    assert 0 <= told["self_cider"] <= 1
    assert "temperature 1, 3 samples" in summary["protocol"]["decoding"]
