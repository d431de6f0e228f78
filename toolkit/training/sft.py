"""Supervised fine-tuning of an image-text model on prompts and completions (TRL ``SFTTrainer``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trl import SFTConfig, SFTTrainer

from toolkit.config.schema import RunSpec
from toolkit.data.datasets import sft_dataset
from toolkit.records import SftRow
from toolkit.runs.directory import RunDirectory
from toolkit.training.arguments import trainer_arguments
from toolkit.training.precision import keeping_trainable_dtype
from toolkit.training.running import fit
from toolkit.training.saving import save_final

__all__ = ["train_sft"]


def train_sft(
    model: Any,
    processor: Any,
    rows: Sequence[SftRow],
    val_rows: Sequence[SftRow],
    *,
    directory: RunDirectory,
    run: RunSpec,
    trainer_options: Mapping[str, Any],
    gradient_checkpointing: bool = False,
    resume: bool = False,
) -> None:
    """Train on the completions only and write ``directory.final``.

    Serves full training (all weights of ``model`` train) and QLoRA (``model`` is a ``PeftModel`` whose
    adapter ``default`` trains on a quantised base). Adapters keep their dtype: TRL would cast those of a
    quantised base to bfloat16. Nothing is truncated (``max_length=None``): cutting a prompt would cut image
    tokens.

    Args:
        model: a transformers image-text-to-text model or a ``PeftModel`` on one; changed in place.
        processor: its processor, with chat template.
        rows: training rows; images are decoded when a batch is made.
        val_rows: rows of the validation loss, evaluated every ``run.eval_every_steps``; may be empty.
        directory: the run; gets ``metrics.jsonl``, ``checkpoint-<step>/`` and ``final/``.
        run: seed and intervals in optimizer steps.
        trainer_options: the recipe's ``trainer:`` block, keys of ``trl.SFTConfig``.
        gradient_checkpointing: recompute activations (non-reentrant) to save memory.
        resume: go on from the newest checkpoint in ``directory``, if there is one.

    Raises:
        RecipeError: ``trainer_options`` is refused by TRL.
        RunFailed: the loss became infinite or NaN.
        Interrupted: a signal ended the run; a checkpoint was written.
    """
    arguments = trainer_arguments(
        SFTConfig,
        directory=directory.path,
        run=run,
        options=trainer_options,
        gradient_checkpointing=gradient_checkpointing,
        has_validation=bool(val_rows),
        defaults={"max_length": None, "completion_only_loss": True},
    )
    with keeping_trainable_dtype(model):
        trainer = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=sft_dataset(rows),
            eval_dataset=sft_dataset(val_rows) if val_rows else None,
            processing_class=processor,
        )
    fit(trainer, directory=directory, run=run, resume=resume, label="sft")
    save_final(trainer, processor, directory.final)
