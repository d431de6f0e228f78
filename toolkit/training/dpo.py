"""Direct preference optimisation of an image-text model on preference pairs (TRL ``DPOTrainer``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel
from trl import DPOConfig, DPOTrainer

from toolkit.config.schema import PreferenceGuardSpec, RunSpec
from toolkit.data.datasets import preference_dataset
from toolkit.errors import RunFailed, UsageError
from toolkit.records import PreferenceRow
from toolkit.runs.directory import RunDirectory
from toolkit.training.arguments import trainer_arguments
from toolkit.training.precision import keeping_trainable_dtype
from toolkit.training.preference_rails import PreferenceRails
from toolkit.training.running import fit
from toolkit.training.saving import save_final

__all__ = ["train_dpo"]

REFERENCE = "ref"
"""Name of the frozen copy of the policy's adapter; TRL's trainers look for it under this name."""


def train_dpo(
    model: Any,
    processor: Any,
    rows: Sequence[PreferenceRow],
    val_rows: Sequence[PreferenceRow],
    *,
    directory: RunDirectory,
    run: RunSpec,
    trainer_options: Mapping[str, Any],
    guards: PreferenceGuardSpec | None = None,
    gradient_checkpointing: bool = False,
    resume: bool = False,
) -> None:
    """Train the adapter ``default`` on pairs against a frozen copy of itself, and write ``directory.final``.

    The loss is that of Rafailov et al. 2023, or of ``trainer_options`` (``loss_type``, ``beta``, …). The reference is
    a frozen adapter ``ref``, bit for bit the policy before the first step.

    Args:
        model, processor: a ``PeftModel`` whose adapter ``default`` is the SFT policy, changed in place; its processor.
        rows: pairs to train on; images are decoded when a batch is made.
        val_rows: pairs for the validation loss and accuracy; may be empty.
        directory: the run; gets ``metrics.jsonl``, ``checkpoint-<step>/`` and ``final/``.
        run: seed and intervals in optimizer steps.
        trainer_options: the recipe's ``trainer:`` block, keys of ``trl.DPOConfig``.
        guards: the guard rail; that of ``PreferenceGuardSpec`` by default.
        gradient_checkpointing: recompute activations (non-reentrant) to save memory.
        resume: go on from the newest checkpoint in ``directory``, if there is one.

    Raises:
        UsageError: ``model`` is not a ``PeftModel``.
        RecipeError: ``trainer_options`` is refused by TRL.
        RunFailed: the loss became infinite or NaN, or a guard rail stopped the run (a checkpoint was written).
        Interrupted: a signal ended the run; a checkpoint was written.
    """
    _require_adapter(model)
    arguments = trainer_arguments(
        DPOConfig,
        directory=directory.path,
        run=run,
        options=trainer_options,
        gradient_checkpointing=gradient_checkpointing,
        has_validation=bool(val_rows),
        defaults={"max_length": None},
    )
    with keeping_trainable_dtype(model):
        trainer = DPOTrainer(
            model=model,
            args=arguments,
            train_dataset=preference_dataset(rows),
            eval_dataset=preference_dataset(val_rows) if val_rows else None,
            processing_class=processor,
        )
    _copy_policy_to_reference(model)
    rails = PreferenceRails(guards or PreferenceGuardSpec(), beta=float(arguments.beta))
    trainer.add_callback(rails)
    fit(trainer, directory=directory, run=run, resume=resume, label="dpo")
    _require_healthy(rails)
    save_final(trainer, processor, directory.final)


def _require_adapter(model: Any) -> None:
    if not isinstance(model, PeftModel):
        raise UsageError(
            "the preference stage needs an adapter on the base model, found a model without one",
            remedy="set model.lora, or let model.id be the final/ directory of an SFT run",
        )


def _require_healthy(rails: PreferenceRails) -> None:
    if rails.reason is not None:
        raise RunFailed(
            f"stopped at {rails.reason}",
            remedy="lower trainer.learning_rate or max_steps, raise beta, or imitate the chosen texts as well: "
            "loss_type: [sigmoid, sft]",
        )


def _copy_policy_to_reference(model: PeftModel) -> None:
    """Make the adapter ``ref`` equal to ``default`` in value and dtype, and frozen."""
    if REFERENCE not in model.peft_config:
        raise RunFailed("the trainer made no frozen reference adapter", remedy="use the tested trl version")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if f".{REFERENCE}." in name:
                policy = model.get_parameter(name.replace(f".{REFERENCE}.", ".default."))
                parameter.data = policy.data.clone()
                parameter.requires_grad_(False)
