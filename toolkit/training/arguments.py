"""Trainer arguments from a recipe: the toolkit's decisions, and the ``trainer:`` block on top of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import TrainingArguments

from toolkit.config.schema import RunSpec
from toolkit.errors import RecipeError

__all__ = ["STAGING_DIRECTORY", "trainer_arguments"]

STAGING_DIRECTORY = ".trainer"
"""Folder inside a run directory where the trainer writes a checkpoint before it is renamed to its place."""

OWNED_BY_RECIPE: Mapping[str, str] = {
    "output_dir": "run.output_dir",
    "seed": "run.seed",
    "data_seed": "run.seed",
    "logging_steps": "run.log_every_steps",
    "save_steps": "run.save_every_steps",
    "save_strategy": "run.save_every_steps",
    "save_total_limit": "run.save_total_limit",
    "eval_steps": "run.eval_every_steps",
    "eval_strategy": "run.eval_every_steps",
    "report_to": "run.report_to",
    "gradient_checkpointing": "model.gradient_checkpointing",
    "activation_checkpointing": "model.gradient_checkpointing",
}

ArgumentsT = TypeVar("ArgumentsT", bound=TrainingArguments)


def trainer_arguments(
    config_class: type[ArgumentsT],
    *,
    directory: Path,
    run: RunSpec,
    options: Mapping[str, Any],
    gradient_checkpointing: bool = False,
    has_validation: bool = False,
    defaults: Mapping[str, Any] | None = None,
) -> ArgumentsT:
    """Arguments for one of TRL's or transformers' trainers.

    Half precision comes from the model's own dtype, never from autocast, so ``bf16`` and ``fp16`` are off
    unless the recipe's ``trainer:`` block turns them on. Checkpoints go to a staging folder first (see
    ``checkpoints``), so the trainer's own rotation is off.

    Args:
        config_class: ``trl.SFTConfig``, ``trl.DPOConfig`` or ``transformers.TrainingArguments``.
        directory: the run directory.
        run: seeds and intervals.
        options: the recipe's ``trainer:`` block.
        gradient_checkpointing: from the recipe's ``model:`` block.
        has_validation: whether there are validation rows; without them nothing is evaluated during training.
        defaults: values of the stage that ``options`` may overrule.

    Raises:
        RecipeError: ``options`` holds a key that the recipe states elsewhere, or a value the class refuses.
    """
    _refuse_owned(options)
    evaluates = has_validation and run.eval_every_steps is not None
    on_cpu = not torch.cuda.is_available()
    values: dict[str, Any] = {
        "bf16": False,
        "fp16": False,
        "disable_tqdm": True,
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        **(defaults or {}),
        **options,
        "output_dir": str(directory / STAGING_DIRECTORY),
        "seed": run.seed,
        "logging_strategy": "steps",
        "logging_steps": run.log_every_steps,
        "save_strategy": "no" if run.save_every_steps is None else "steps",
        "save_steps": run.save_every_steps or 500,
        "save_total_limit": None,
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": run.eval_every_steps if evaluates else None,
        "report_to": list(run.report_to) or "none",
        "activation_checkpointing": gradient_checkpointing,
    }
    if gradient_checkpointing:
        values.setdefault("activation_checkpointing_kwargs", {"use_reentrant": False})
    try:
        return config_class(**values)
    except (TypeError, ValueError) as error:
        raise RecipeError("recipe", f"trainer: {config_class.__name__} refuses it: {error}") from error


def _refuse_owned(options: Mapping[str, Any]) -> None:
    clashes = [
        f"trainer.{key}: set {OWNED_BY_RECIPE[key]} instead" for key in options if key in OWNED_BY_RECIPE
    ]
    if clashes:
        raise RecipeError("recipe", clashes)
