# ruff: noqa: E501 - messages are shown whole
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toolkit.config.document import parse_text, plain
from toolkit.config.loading import load_recipe, parse_recipe, recipe_json_schema, resolved_yaml, stage_classes
from toolkit.config.schema import RlRecipe, SftRecipe
from toolkit.errors import RecipeError, UsageError

SFT = """\
stage: sft
model:
  id: some/model
data:
  root: photos
  train:
    - {kind: caption, captions: captions.json}
trainer:
  learning_rate: 1e-5
run: {output_dir: out/sft}
"""
RL: dict[str, Any] = {
    "stage": "rl",
    "model": {"id": "some/model"},
    "data": {"root": "photos", "train": [{"kind": "rows", "file": "prompts.jsonl"}]},
    "rewards": [{"term": "cider", "clip": [0, 10]}],
    "run": {"output_dir": "out/rl"},
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "sft.yaml"
    path.write_text(SFT, encoding="utf-8")
    return path


def problems(path: Path, overrides: list[str] | dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides or ())
    assert caught.value.exit_code == 2
    return [problem.replace(f"{path.parent}/", "") for problem in caught.value.problems]


def edited(path: Path, old: str, new: str) -> Path:
    assert old in SFT
    path.write_text(SFT.replace(old, new), encoding="utf-8")
    return path


def test_numbers_in_exponent_form_are_numbers(recipe: Path) -> None:
    loaded = load_recipe(recipe)
    assert isinstance(loaded, SftRecipe)
    assert loaded.trainer == {"learning_rate": 1e-5}
    assert loaded.model.id == "some/model"


def test_all_problems_at_once_with_line_key_and_suggestion(recipe: Path) -> None:
    text = SFT.replace("  id: some/model", "  id: 3\n  dtyp: float32\n  dtype: float64")
    text = text.replace("captions: captions.json", "captions: captions.json, imagess: a")
    recipe.write_text(text.replace("output_dir: out/sft", 'output_dir: out/sft, seed: "3"'), encoding="utf-8")
    found = problems(recipe)
    assert found[0] == "sft.yaml:3  model.id: expected text (quote it if it looks like a number), found 3"
    assert any(
        line.startswith("sft.yaml:5  model.dtype: expected one of 'float32', 'bfloat16' or 'float16'")
        and line.endswith("found 'float64'; did you mean 'float16'?")
        for line in found
    )
    assert any(
        line.startswith("sft.yaml:4  model.dtyp: ") and line.endswith("did you mean 'dtype'?")
        for line in found
    )
    assert any(
        line.startswith(
            "sft.yaml:9  data.train.0.imagess: expected one of the keys captions, images, kind, limit"
        )
        and line.endswith("did you mean 'images'?")
        for line in found
    )
    assert "sft.yaml:12  run.seed: expected a whole number, found '3'" in found
    assert len(found) == 5


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("stage: sft", "stage: sftt", "sft.yaml:1  stage: expected one of pretrain, judging, sft,"),
        ("stage: sft", "stage: [sft]", "sft.yaml:1  stage: expected one of pretrain, judging, sft,"),
        ("stage: sft\n", "", "stage: expected one of pretrain, judging, sft,"),
        ("kind: caption", "kind: capton", "sft.yaml:7  data.train.0.kind: expected one of 'caption', 'vqa', 'rows', found 'capton'; did you mean 'caption'?"),
        ("kind: caption, ", "", "sft.yaml:7  data.train.0.kind: expected a value (the key is required), found nothing"),
        ("  root: photos\n", "", "sft.yaml:4  data.root: expected a value (the key is required), found nothing"),
        ("{output_dir: out/sft}", "{output_dir: out/sft, log_every_steps: 0}", "sft.yaml:10  run.log_every_steps: expected a number of at least 1, found 0"),
        ("{output_dir: out/sft}", "{output_dir: out/sft, seed: 1.5}", "run.seed: expected a whole number, found 1.5"),
        ("{output_dir: out/sft}", "{output_dir: out/sft, seed: yes}", "run.seed: expected a whole number, found 'yes'"),
        ("{output_dir: out/sft}", "3", "sft.yaml:10  run: expected a mapping, found 3"),
        ("  id: some/model", "  id: some/model\n  lora: {rank: 8, rank: 16}", "sft.yaml:4  rank: repeated key, first written on line 4; keep one"),
        ("  id: some/model", "  id: some/model\n  <<: {}", "merge keys (<<) are not supported"),
        ("  id: some/model", "  id: !!python/name:os.system x", "tags are not supported"),
        ("  id: some/model", "  id: [", "no valid YAML"),
        ("  id: some/model", "\tid: x", "no valid YAML"),
        ("trainer:", "? [a, b]\n: 3\ntrainer:", "expected a plain key, found a list or mapping as key"),
        ("run:", "seed: 4\nrun:", "sft.yaml:10  seed: expected one of the keys data, model, run, stage, trainer, found an unknown key; did you mean 'run.seed'?"),
    ],
)  # fmt: skip
def test_one_problem(recipe: Path, old: str, new: str, expected: str) -> None:
    found = problems(edited(recipe, old, new))
    assert any(expected in line for line in found), found


def test_unknown_stage_is_suggested(recipe: Path) -> None:
    assert problems(edited(recipe, "stage: sft", "stage: sf"))[0].endswith("found 'sf'; did you mean 'sft'?")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "found nothing (the file is empty)"), ("3", "found a single value"), ("- a", "found a list")],
)
def test_a_file_that_is_no_mapping(recipe: Path, text: str, expected: str) -> None:
    recipe.write_text(text, encoding="utf-8")
    assert expected in problems(recipe)[0]


def test_missing_and_undecodable_files(tmp_path: Path) -> None:
    assert "cannot be read (No such file" in problems(tmp_path / "gone.yaml")[0]
    (tmp_path / "latin.yaml").write_bytes("stage: sft # café".encode("latin-1"))
    assert "expected UTF-8 text, found the byte 0xe9" in problems(tmp_path / "latin.yaml")[0]


def test_repeated_keys_and_schema_problems_come_together(recipe: Path) -> None:
    found = problems(edited(recipe, "  id: some/model", "  id: some/model\n  id: other\n  idd: x"))
    assert any("repeated key" in line for line in found)
    assert any("model.idd" in line for line in found)


def test_aliases_are_read_and_bombs_refused(recipe: Path) -> None:
    assert load_recipe(edited(recipe, "photos", "&name photos")).model_dump()["data"]["root"] == "photos"
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
    )
    recipe.write_text(SFT + bomb, encoding="utf-8")
    assert any("aliases of aliases" in line for line in problems(recipe))


# ---- overrides -------------------------------------------------------------------------------------------------


def test_overrides_follow_yaml_rules_and_reach_lists() -> None:
    loaded = parse_recipe(
        RL,
        ["optimizer.learning_rate=1e-5", "rewards.0.weight=2", "rewards.0.tasks=[caption]", "kl.controller=adaptive",
         "run.output_dir=a b=c", "model.lora.rank=4", "ppo.value_clip=null", "guards.vision_gap_min_nats="],
    )  # fmt: skip
    assert isinstance(loaded, RlRecipe)
    assert loaded.optimizer.learning_rate == 1e-5
    assert loaded.rewards[0].weight == 2.0
    assert loaded.rewards[0].tasks == ["caption"]
    assert loaded.rewards[0].clip == (0.0, 10.0)
    assert loaded.run.output_dir == "a b=c"
    assert loaded.model.lora is not None
    assert loaded.model.lora.rank == 4
    assert loaded.ppo.value_clip is None
    assert loaded.guards.vision_gap_min_nats is None


def test_overrides_as_a_mapping_need_no_text() -> None:
    loaded = parse_recipe(RL, {"run.seed": 3, "rewards": [{"term": "bleu"}], "model.lora": {"rank": 2}})
    assert isinstance(loaded, RlRecipe)
    assert (loaded.run.seed, loaded.rewards[0].term) == (3, "bleu")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("run.sed=3", "override 'run.sed=3'  run.sed: expected one of the keys"),
        ("rewards.0.weight=.nan", "rewards.0.weight: expected a finite number, found nan"),
        ("rewards.0.clip=[0, .inf]", "rewards.0.clip.1: expected a finite number, found inf"),
        ("run.seed=x", "override 'run.seed=x'  run.seed: expected a whole number, found 'x'"),
        ("rewards.1.weight=3", "rewards is a list: expected an index (0 to 0), found '1'"),
        ("rewards.x.weight=3", "rewards is a list: expected an index (0 to 0), found 'x'"),
        ("model.id.x=3", "model.id is a single value, it has no key 'x'"),
        ("run.seed=[1", "override 'run.seed=[1'  no valid YAML"),
    ],
)
def test_wrong_overrides_name_the_override(override: str, expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(RL, [override])
    assert any(expected in line for line in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("--run.seed=3", "write it without dashes: run.seed=3"),
        ("--seed=3", "write it without dashes: run.seed=3"),
        ("--seed", "write it without dashes: run.seed=VALUE"),
        ("--learning-rate=3", "write it without dashes: optimizer.learning_rate=3"),
        ("seed", "write key.sub=value, e.g. run.seed=VALUE"),
        ("=3", "write key.sub=value, e.g. run.seed=VALUE"),
        ("run..seed=3", "write key.sub=value"),
    ],
)
def test_flags_are_refused_with_the_right_spelling(override: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_recipe(RL, [override])
    assert caught.value.exit_code == 2
    assert str(caught.value.remedy).startswith(remedy)


# ---- extends ---------------------------------------------------------------------------------------------------


def test_extends_lays_the_recipe_on_its_base(tmp_path: Path, recipe: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("extends: sft.yaml\nrun: {seed: 7}\ndata: {train: [{kind: rows, file: r.jsonl}]}\n")
    loaded = load_recipe(child)
    assert isinstance(loaded, SftRecipe)
    assert (loaded.run.seed, loaded.run.output_dir, loaded.data.root) == (7, "out/sft", "photos")
    assert [source.kind for source in loaded.data.train] == ["rows"]


def test_problems_of_a_base_name_the_base(tmp_path: Path, recipe: Path) -> None:
    edited(recipe, "root: photos", "root: 3")
    child = tmp_path / "child.yaml"
    child.write_text("extends: sft.yaml\nrun: {sed: 7}\n")
    found = problems(child)
    assert found[0].startswith("sft.yaml:5  data.root: expected text")
    assert found[1].startswith("child.yaml:2  run.sed: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("extends: gone.yaml", "child.yaml:1  extends: expected an existing file"),
        (
            "extends: [sft.yaml]",
            "child.yaml:1  extends: expected the path of a recipe file, found a list of 1",
        ),
        (
            "extends: middle.yaml",
            "middle.yaml:1  extends: a recipe that is extended cannot extend another one",
        ),
    ],
)
def test_wrong_extends(tmp_path: Path, recipe: Path, text: str, expected: str) -> None:
    (tmp_path / "middle.yaml").write_text("extends: sft.yaml\n")
    (tmp_path / "child.yaml").write_text(text + "\nstage: sft\n")
    assert any(line.startswith(expected) for line in problems(tmp_path / "child.yaml"))


# ---- writing ---------------------------------------------------------------------------------------------------


def test_resolved_yaml_reads_back_equal(tmp_path: Path) -> None:
    loaded = parse_recipe(RL, ["optimizer.learning_rate=1e-7", "model.lora.rank=4", 'run.output_dir="yes"'])
    path = tmp_path / "resolved.yaml"
    path.write_text(resolved_yaml(loaded), encoding="utf-8")
    assert load_recipe(path) == loaded
    assert "kl:\n  coefficient: 0.03\n" in path.read_text()


@settings(deadline=None, max_examples=60)
@example("\x85", 0.0, 0)
@example("a\u2028ä", 0.0, 0)
@given(st.text(max_size=30), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**40), 2**40))
def test_resolved_yaml_keeps_any_value(text: str, number: float, whole: int) -> None:
    values = {
        **RL,
        "rewards": [{"term": "cider", "options": {"text": text, "number": number, "whole": whole}}],
    }
    loaded = parse_recipe(values)
    found: list[str] = []
    tree = parse_text(resolved_yaml(loaded), "resolved", found)
    assert tree is not None, found
    assert plain(tree) == loaded.model_dump(mode="json")


def test_json_schema_covers_every_stage() -> None:
    text = str(recipe_json_schema())
    for stage in stage_classes():
        assert f"'const': '{stage}'" in text
    assert "'extends'" in text
