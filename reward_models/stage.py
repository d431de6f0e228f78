"""The ``reward`` stage: a reward model from preference pairs, evaluated on held-out ones."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from itertools import islice

import numpy as np
from transformers import TrainingArguments, set_seed

from reward_models.best import BestModel
from reward_models.checkpoint import describe, save_reward_model
from reward_models.config import RewardConfig
from reward_models.data import RewardData, load_reward_data
from reward_models.evaluation import EVALUATION_FILE, evaluate_pairs
from reward_models.model import VlmRewardModel
from reward_models.pairs import PairCollator
from reward_models.prompts import PromptEncoder
from reward_models.scorer import LearnedReward
from reward_models.trainer import RewardTrainer
from toolkit.config.schema import RewardRecipe
from toolkit.data.preferences import pairs_of
from toolkit.errors import RecipeError
from toolkit.models.loading import load_vlm
from toolkit.records import PreferenceRow, RankedRow
from toolkit.runs.atomic import atomic_directory, atomic_write_text
from toolkit.runs.directory import RunDirectory
from toolkit.training.arguments import trainer_arguments
from toolkit.training.partitioned import trained_tensors
from toolkit.training.running import fit

__all__ = ["EVALUATION_FILE", "train_reward"]

_LOG = logging.getLogger("vlm_rlhf.reward")
_OWN = ("load_best_model_at_end", "metric_for_best_model", "greater_is_better")
_DEFAULTS = {
    "learning_rate": 5e-4,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 32,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 10,
    "max_steps": 150,
    "adam_beta2": 0.95,
}


def train_reward(
    recipe: RewardRecipe,
    directory: RunDirectory,
    resume: bool,
    *,
    data: RewardData | None = None,
) -> None:
    """Train a reward model, write ``final/`` and ``reward_evaluation.json``.

    ``final/`` holds the adapter (or full weights), ``reward_head.safetensors``, ``reward_config.json`` and
    the processor. With validation rows the weights are those of the best evaluation.

    Args:
        recipe: the recipe.
        directory: the prepared run directory.
        resume: continue from the latest checkpoint.
        data: what ``load_reward_data`` gives; read here by default.

    Raises:
        RecipeError: the ``trainer:`` block names a key that the stage decides, or one that is refused.
        DataError: wrong or unreadable pairs.
        RunFailed: the loss became infinite or NaN.
        Interrupted: a signal ended the run after a checkpoint was written.
    """
    _refuse_own_keys(recipe)
    rows, val_rows = data or load_reward_data(recipe)
    set_seed(recipe.run.seed)  # before a new adapter gets its first weights
    vlm = load_vlm(recipe.model, trainable=True)
    model = VlmRewardModel.new(vlm)
    encoder = PromptEncoder(vlm, blank_images=recipe.blank_images)
    arguments = trainer_arguments(
        TrainingArguments,
        directory=directory.path,
        run=recipe.run,
        options=recipe.trainer,
        has_validation=bool(val_rows),
        defaults=_DEFAULTS,
    )
    trainer = RewardTrainer(
        model,
        arguments,
        rows=rows,
        val_rows=val_rows,
        collator=PairCollator(encoder),
        loss=recipe.loss,
        head_learning_rate=recipe.head_learning_rate,
    )
    best = BestModel(trainer, directory, recipe.early_stopping_patience)
    trainer.add_callback(best)
    fit(trainer, directory=directory, run=recipe.run, resume=resume, label="reward")
    step = best.restore()
    if step is not None:
        _LOG.info("weights of step %d, the best evaluation", step)
    config = describe(vlm, recipe.model, blank_images=recipe.blank_images)
    measured = val_rows or _some_pairs(rows)
    _finish(trainer, model, config, measured, directory, held_out=bool(val_rows))


def _refuse_own_keys(recipe: RewardRecipe) -> None:
    clashes = [
        f"trainer.{key}: the stage keeps the best evaluation itself" for key in _OWN if key in recipe.trainer
    ]
    if clashes:
        raise RecipeError("recipe", clashes, remedy="remove the key")


def _some_pairs(rows: Sequence[PreferenceRow] | Sequence[RankedRow], most: int = 256) -> list[PreferenceRow]:
    """Training pairs to measure mean and spread of the scores on where there is no validation."""
    pairs = (pairs_of(row) if isinstance(row, RankedRow) else [row] for row in rows)
    return list(islice((pair for several in pairs for pair in several), most))


def _finish(
    trainer: RewardTrainer,
    model: VlmRewardModel,
    config: RewardConfig,
    rows: Sequence[PreferenceRow],
    directory: RunDirectory,
    *,
    held_out: bool,
) -> None:
    """Measure on ``rows``, write the evaluation and the model; only the first process writes."""
    chosen, rejected = trainer.scores(rows)
    both = np.concatenate([chosen, rejected])
    right = float(np.mean((chosen > rejected) + 0.5 * (chosen == rejected)))
    config = config.model_copy(
        update={
            "score_mean": float(both.mean()),
            "score_std": float(both.std()),
            "held_out_accuracy": right if held_out else None,
            "held_out_pairs": len(rows) if held_out else 0,
        }
    )
    # Forwards and gathering are collective where the weights are split, so every process takes part in them.
    report = evaluate_pairs(LearnedReward(model, config), rows) if held_out else None
    tensors = trained_tensors(trainer)
    if trainer.is_world_process_zero():
        if report is not None:
            text = json.dumps(report.as_json(), indent=2) + "\n"
            atomic_write_text(directory.path / EVALUATION_FILE, text)
            _LOG.info("%s", report.summary())
        with atomic_directory(directory.final) as folder:
            save_reward_model(
                model, folder, config, tensors=tensors if trainer.is_deepspeed_enabled else None
            )
    trainer.accelerator.wait_for_everyone()
