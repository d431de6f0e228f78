"""The model card: true, escaped, and without anything of the machine that it was written on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from toolkit.config.loading import resolved_yaml
from toolkit.config.schema import RlRecipe, SftRecipe
from toolkit.runs.environment import package_versions
from toolkit.runs.model_card import CARD_FILE, model_card, write_model_card

HOME = "/srv/somebody"
SOURCE = {"kind": "rows", "file": "train.jsonl", "limit": 5}


def saved(run: Path, recipe: SftRecipe | RlRecipe | None, **adapter: Any) -> Path:
    """A run with its recipe and the files of saved weights that a card reads."""
    final = run / "final"
    final.mkdir(parents=True)
    if recipe is not None:
        (run / "recipe.resolved.yaml").write_text(resolved_yaml(recipe), encoding="utf-8")
    if adapter:
        (final / "adapter_config.json").write_text(json.dumps(adapter), encoding="utf-8")
    return final


def head_of(card: str) -> dict[str, Any]:
    _, head, _ = card.split("---\n", 2)
    return YAML(typ="safe").load(head)


def sft(**changes: Any) -> SftRecipe:
    values = {
        "stage": "sft",
        "model": {"id": "owner/model-7b", "dtype": "bfloat16"},
        "data": {"root": f"{HOME}/coco", "train": [SOURCE]},
        "run": {"output_dir": f"{HOME}/runs/sft"},
    }
    return SftRecipe.model_validate(values | changes)


def test_an_adapter_on_a_base_of_the_hub(tmp_path: Path) -> None:
    recipe = sft(trainer={"learning_rate": 0.002, "max_steps": 7})
    adapter = {"base_model_name_or_path": "owner/model-7b", "revision": "abc123", "r": 16}
    final = saved(tmp_path / "my-run", recipe, **adapter)
    (final / CARD_FILE).write_text("# Model Card for Model ID [More Information Needed]")
    write_model_card(final, final.parent)
    card = (final / CARD_FILE).read_text()
    assert head_of(card) == {
        "library_name": "peft",
        "base_model": "owner/model-7b",
        "pipeline_tag": "image-text-to-text",
        "tags": ["vlm-rlhf", "sft", "lora"],
    }
    assert "# `my-run`" in card
    assert "A LoRA adapter of rank 16 on `owner/model-7b` at revision `abc123`." in card
    assert 'from_pretrained(base, dtype="bfloat16", revision="abc123")' in card
    assert "Below `coco`:\n\n- train: rows from `train.jsonl`, at most 5\n" in card
    assert "| `trainer.learning_rate` | `0.002` |" in card
    assert f"transformers {package_versions()['transformers']}" in card
    assert "More Information" not in card
    assert HOME not in card


def test_a_local_base_is_told_by_its_name_alone(tmp_path: Path) -> None:
    base = tmp_path / "chain" / "base" / "final"
    recipe = sft(model={"id": f"{HOME}/chain/sft/final"})
    card = model_card(
        saved(tmp_path / "run", recipe, base_model_name_or_path=str(base), r=4), tmp_path / "run"
    )
    assert head_of(card)["base_model"] == "base"
    assert "on `base`. Training began from `sft`." in card
    assert str(tmp_path) not in card
    assert HOME not in card


def test_a_folder_of_two_names_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out/base").mkdir(parents=True)
    final = saved(tmp_path / "run", sft(model={"id": "out/base"}))
    assert head_of(model_card(final, final.parent))["base_model"] == "base"


def test_rewards_of_a_policy_and_no_options_that_may_hold_secrets(tmp_path: Path) -> None:
    terms = [
        {"term": "cider", "weight": 1.5, "normalise": "frozen"},
        {"term": f"{HOME}/mine.py:brevity", "weight": 0.5},
        {"term": "learned", "model": f"{HOME}/reward/final"},
        {"term": "http", "options": {"url": "http://host/?key=SECRET"}},
    ]
    values = sft().model_dump(mode="json", exclude={"trainer"})
    recipe = RlRecipe.model_validate(values | {"stage": "rl", "rewards": terms})
    card = model_card(saved(tmp_path / "rl", recipe), tmp_path / "rl")
    assert "| `reward cider` | `weight 1.5, normalise frozen` |" in card
    assert "| `reward mine.py:brevity` | `weight 0.5, normalise none` |" in card
    assert "| `reward learned` | `weight 1.0, normalise none, model reward` |" in card
    assert "| `ppo.estimator` | `gae` |" in card
    assert "SECRET" not in card
    assert HOME not in card


def test_trainer_keys_of_the_hub_and_of_folders_are_left_out(tmp_path: Path) -> None:
    secret = {"hub_token": "SECRET", "push_to_hub_token": "SECRET", "logging_dir": f"{HOME}/logs"}
    recipe = sft(trainer={**secret, "deepspeed": f"{HOME}/zero2.json"})
    card = model_card(saved(tmp_path / "run", recipe), tmp_path / "run")
    assert "SECRET" not in card
    assert HOME not in card
    assert "| `trainer.deepspeed` | `zero2.json` |" in card


def test_what_recipes_say_is_text_never_markup(tmp_path: Path) -> None:
    odd = "a`<script>|\n# b"
    recipe = sft(
        data={"root": odd, "train": [{"kind": "rows", "file": odd}]}, trainer={odd: odd, "note": odd}
    )
    card = model_card(saved(tmp_path / "run", recipe), tmp_path / "run")
    assert "\n# b" not in card
    assert "| `trainer.note` | `a'<script>\\| # b` |" in card
    assert "rows from `a'<script>| # b`\n" in card
    assert all(line.count("`") % 2 == 0 for line in card.splitlines() if "script" in line)


def test_without_a_recipe_the_weights_speak_for_themselves(tmp_path: Path) -> None:
    final = saved(tmp_path / "run", None, base_model_name_or_path="owner/model", r=2)
    card = model_card(final, final.parent)
    assert "A LoRA adapter of rank 2 on `owner/model`." in card
    assert "## Settings" not in card
    assert "## Data" not in card
    (final / "reward_config.json").write_text(json.dumps({"base_id": "owner/model"}))
    assert head_of(model_card(final, final.parent))["tags"] == ["vlm-rlhf", "reward", "lora"]
