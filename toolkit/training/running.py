"""Run a transformers ``Trainer`` the way every stage does: callbacks, exact resume, signals."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedModel, Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from toolkit.config.schema import RunSpec
from toolkit.runs.directory import RunDirectory
from toolkit.training.checkpoints import AtomicCheckpoints, resumable_checkpoint
from toolkit.training.logging_callbacks import MetricsLines, ProgressLine, StopOnSignal

__all__ = ["fit", "load_full_weights"]


def fit(trainer: Trainer, *, directory: RunDirectory, run: RunSpec, resume: bool, label: str) -> None:
    """Train, with lines in the run's ``metrics.jsonl`` and atomic checkpoints in its folder.

    Args:
        trainer: built with ``trainer_arguments`` for the same folder.
        directory: the run; its ``stop`` flag is asked after every step.
        run: intervals and how many checkpoints stay.
        resume: go on from the newest checkpoint, exactly; without one, start from the beginning.
        label: name of the stage on the progress line.

    Raises:
        RunFailed: the loss became infinite or NaN.
        Interrupted: a signal ended the run after a checkpoint was written.
    """
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    for added in (
        ProgressLine(label),
        StopOnSignal(directory.stop),
        AtomicCheckpoints(directory, run.save_total_limit),
        MetricsLines(directory.metrics),
    ):
        trainer.add_callback(added)
    newest = resumable_checkpoint(directory) if resume else None
    if newest is not None:
        load_full_weights(trainer, newest)
    with _without_name_warnings():
        trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    step, last = trainer.state.global_step, trainer.state.max_steps
    if step < last:
        directory.stop.raise_if_requested(f"stopped after step {step} of {last}; --resume goes on from there")


def load_full_weights(trainer: Trainer, checkpoint: Path) -> None:
    """Load the weights of a full model (no adapter) from ``checkpoint``; leave others to the trainer.

    The trainer reads the checkpoint's tensors by name and skips, with a warning only, names that it does
    not know. Several families (LLaVA among them) are saved under other names than they have in memory, so a
    resumed run would go on from random weights. ``from_pretrained`` knows the conversion.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not isinstance(model, PreTrainedModel) or trainer.is_deepspeed_enabled:
        return
    saved = type(model).from_pretrained(checkpoint, dtype=model.dtype, local_files_only=True)
    model.load_state_dict(saved.state_dict(), strict=True)


@contextmanager
def _without_name_warnings() -> Iterator[None]:
    """Drop the trainer's warnings about tensor names on resume.

    Full models were loaded strictly just before; of other models a checkpoint holds the trained tensors
    only, so those of the frozen base are always "missing".
    """
    logger = logging.getLogger("transformers.trainer")

    def keep(record: logging.LogRecord) -> bool:
        return "keys in the checkpoint model loaded" not in record.getMessage()

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
