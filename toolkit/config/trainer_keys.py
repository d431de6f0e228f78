"""The ``trainer:`` block, checked against the fields of the config class it is passed to.

The names and types are read from the installed sources of TRL and transformers, base classes included, because
importing those classes takes seconds and loads torch. A test compares the result with the real dataclasses.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.config.messages import describe, suggestion
from toolkit.errors import EnvironmentLacking

__all__ = ["OWNED_BY_RECIPE", "TRAINER_CLASSES", "trainer_fields", "trainer_problems"]

# Stage → package, module file and class that its ``trainer:`` block is passed to.
TRAINER_CLASSES: Mapping[str, tuple[str, str, str]] = {
    "pretrain": ("trl", "trainer/sft_config.py", "SFTConfig"),
    "judging": ("transformers", "training_args.py", "TrainingArguments"),
    "sft": ("trl", "trainer/sft_config.py", "SFTConfig"),
    "preference": ("trl", "trainer/dpo_config.py", "DPOConfig"),
    "reward": ("transformers", "training_args.py", "TrainingArguments"),
}

# Trainer option → where a recipe or the command line says it instead.
OWNED_BY_RECIPE: Mapping[str, str] = {
    "activation_checkpointing": "model.gradient_checkpointing",
    "data_seed": "run.seed",
    "deepspeed": "vlm-rlhf run --launch zero2",
    "eval_steps": "run.eval_every_steps",
    "eval_strategy": "run.eval_every_steps",
    "fsdp": "vlm-rlhf run --launch fsdp",
    "fsdp_config": "vlm-rlhf run --launch FILE.yaml",
    "gradient_checkpointing": "model.gradient_checkpointing",
    "logging_steps": "run.log_every_steps",
    "logging_strategy": "run.log_every_steps",
    "model_init_kwargs": "model",
    "output_dir": "run.output_dir",
    "report_to": "run.report_to",
    "resume_from_checkpoint": "vlm-rlhf run --resume",
    "save_steps": "run.save_every_steps",
    "save_strategy": "run.save_every_steps",
    "save_total_limit": "run.save_total_limit",
    "seed": "run.seed",
}

# Classes the two config classes inherit from, and where they are defined.
_BASES: Mapping[str, tuple[str, str]] = {
    "_BaseConfig": ("trl", "trainer/base_config.py"),
    "TrainingArguments": ("transformers", "training_args.py"),
}
_ENUM_FILES = (("transformers", "training_args.py"), ("transformers", "trainer_utils.py"))
_SIMPLE: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
    "str": (str, "text"),
    "dict": (dict, "a mapping"),
    "list": (list, "a list"),
}


def trainer_fields(stage: str) -> dict[str, str]:
    """Name → annotation (as source text) of every option of a stage's trainer, inherited ones included.

    Raises:
        EnvironmentLacking: the library that defines the class is not installed.
    """
    return dict(_fields(*TRAINER_CLASSES[stage]))


def trainer_problems(stage: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with a ``trainer:`` block: pairs of key and problem, in the order of the block."""
    fields = trainer_fields(stage)
    owner = TRAINER_CLASSES[stage][2]
    free = [name for name in fields if name not in OWNED_BY_RECIPE]
    for key, value in options.items():
        if key in OWNED_BY_RECIPE:
            yield key, f"expected no such key, the toolkit sets it; use {OWNED_BY_RECIPE[key]}"
        elif key not in fields:
            yield key, f"expected an option of {owner}, found an unknown key{suggestion(key, free)}"
        elif (mismatch := _mismatch(fields[key], value)) is not None:
            yield key, f"expected {mismatch[0]}, found {describe(value)}{mismatch[1]}"


def _mismatch(annotation: str, value: Any) -> tuple[str, str] | None:
    """What a value should have been and a hint; ``None`` when it fits or the annotation is too rich to judge."""
    expected: list[str] = []
    choices: list[str] = []
    for part in _union(ast.parse(annotation, mode="eval").body):
        if part == "None":
            if value is None:
                return None
            continue
        name = part.partition("[")[0]
        if name in _SIMPLE:
            kind, words = _SIMPLE[name]
            if isinstance(value, kind) and (name == "bool" or not isinstance(value, bool)):
                if name == "str" and choices and value not in choices:
                    continue
                return None
            expected.append(words)
        elif (members := _enums().get(name)) is not None:
            choices = members
        else:
            return None
    if choices:
        hint = suggestion(value, choices) if isinstance(value, str) else ""
        return f"one of {', '.join(choices)}" if len(choices) <= 12 else "a known value", hint
    return " or ".join(dict.fromkeys(expected)), ""


def _union(node: ast.expr) -> list[str]:
    """The members of ``A | B | None``; enumerations first, since they stand for the ``str`` beside them."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        parts = _union(node.left) + _union(node.right)
    else:
        parts = [ast.unparse(node)]
    return sorted(parts, key=lambda part: part not in _enums())


@functools.cache
def _fields(package: str, file: str, name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    tree = _source(package, file)
    for node in tree.body:
        if not (isinstance(node, ast.ClassDef) and node.name == name):
            continue
        for base in node.bases:
            base_name = ast.unparse(base).rpartition(".")[2]
            if base_name in _BASES:
                found |= _fields(*_BASES[base_name], base_name)
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                annotation = ast.unparse(item.annotation)
                if not annotation.startswith("ClassVar") and "init=False" not in ast.unparse(item):
                    found[item.target.id] = annotation
    if not found:
        raise EnvironmentLacking(
            f"{package}/{file} has no class {name}", remedy="install the tested versions: see constraints.txt"
        )
    return found


@functools.cache
def _enums() -> dict[str, list[str]]:
    """Values of the string enumerations that the options use."""
    found: dict[str, list[str]] = {}
    for package, file in _ENUM_FILES:
        for node in _source(package, file).body:
            if isinstance(node, ast.ClassDef) and any("Enum" in ast.unparse(base) for base in node.bases):
                found[node.name] = [
                    item.value.value
                    for item in node.body
                    if isinstance(item, ast.Assign)
                    and isinstance(item.value, ast.Constant)
                    and isinstance(item.value.value, str)
                ]
    return {name: values for name, values in found.items() if values}


@functools.cache
def _source(package: str, file: str) -> ast.Module:
    spec = importlib.util.find_spec(package)  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentLacking(f"{package} is not installed", remedy=f"pip install {package}")
    path = Path(spec.submodule_search_locations[0]) / file
    if not path.is_file():
        raise EnvironmentLacking(
            f"{package} has no {file}", remedy="install the tested versions: see constraints.txt"
        )
    return ast.parse(path.read_text(encoding="utf-8"))
