from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from toolkit.config.trainer_keys import OWNED_BY_RECIPE, TRAINER_CLASSES, trainer_fields, trainer_problems


@pytest.mark.slow
@pytest.mark.parametrize("stage", TRAINER_CLASSES)
def test_names_read_from_the_source_are_those_of_the_class(stage: str) -> None:
    import transformers
    import trl

    package, _, name = TRAINER_CLASSES[stage]
    real = getattr({"trl": trl, "transformers": transformers}[package], name)
    assert set(trainer_fields(stage)) == {field.name for field in dataclasses.fields(real) if field.init}


def test_owned_options_exist_in_some_trainer() -> None:
    known = set().union(*(trainer_fields(stage) for stage in TRAINER_CLASSES))
    assert set(OWNED_BY_RECIPE) <= known


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        (
            "learning_rat",
            1,
            "expected an option of SFTConfig, found an unknown key; did you mean 'learning_rate'?",
        ),
        ("learning_rate", "fast", "expected a number, found 'fast'"),
        ("max_steps", True, "expected a whole number, found true"),
        ("max_steps", 1.5, "expected a whole number, found 1.5"),
        ("packing", "x", "expected true or false, found 'x'"),
        ("optim", "adamw_torc", "expected a known value, found 'adamw_torc'; did you mean 'adamw_torch'?"),
        ("lr_scheduler_type", "cosin", "found 'cosin'; did you mean 'cosine'?"),
        ("seed", 1, "expected no such key, the toolkit sets it; use run.seed"),
        ("output_dir", "x", "use run.output_dir"),
        ("report_to", "none", "use run.report_to"),
        ("logging_steps", 1, "use run.log_every_steps"),
        ("save_total_limit", 1, "use run.save_total_limit"),
        ("gradient_checkpointing", True, "use model.gradient_checkpointing"),
        ("deepspeed", "x.json", "use vlm-rlhf run --launch zero2"),
    ],
)
def test_wrong_options(key: str, value: object, problem: str) -> None:
    found = list(trainer_problems("sft", {key: value}))
    assert [name for name, _ in found] == [key]
    assert problem in found[0][1]


def test_correct_options_pass() -> None:
    options = {
        "learning_rate": 1,
        "max_steps": 10,
        "warmup_steps": 0.1,
        "lr_scheduler_kwargs": {},
        "lr_scheduler_type": "cosine",
        "max_length": None,
        "optim_target_modules": ["a"],
        "packing": False,
    }
    assert list(trainer_problems("sft", options)) == []
    assert list(trainer_problems("preference", {"beta": 0.1, "loss_type": ["sigmoid"]})) == []
    assert [key for key, _ in trainer_problems("reward", {"beta": 0.1})] == ["beta"]


def test_reading_the_names_imports_no_heavy_library() -> None:
    code = "import sys, toolkit.config.trainer_keys as t; t.trainer_fields('sft'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
