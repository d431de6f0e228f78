"""What a stage leaves behind: ``final/`` with the policy's files at its root, safetensors only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import Trainer

from toolkit.runs.atomic import atomic_directory
from toolkit.runs.model_card import write_model_card
from toolkit.training.partitioned import trained_tensors

__all__ = ["save_final"]


def save_final(trainer: Trainer, processor: Any, final: Path) -> None:
    """Write the trained adapter (or full model), the processor and a model card to ``final``, atomically.

    The folder loads with plain transformers and peft: ``AutoProcessor.from_pretrained(final)`` and
    ``PeftModel.from_pretrained(base, final)`` or ``AutoModelForImageTextToText.from_pretrained(final)``. It
    holds no pickle. Under DeepSpeed the weights are gathered on every process and written by the first.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    state = _state(trainer, model)
    if trainer.is_world_process_zero():
        with atomic_directory(final) as staging:
            options: dict[str, Any] = {} if state is None else {"state_dict": state}
            if isinstance(model, PeftModel):
                options["selected_adapters"] = ["default"]
            model.save_pretrained(staging, **options)
            processor.save_pretrained(staging)
            write_model_card(staging, final.parent)
    trainer.accelerator.wait_for_everyone()


def _state(trainer: Trainer, model: Any) -> dict[str, Any] | None:
    """The tensors to write where the model itself may hold only parts of them; None where it holds all."""
    if not trainer.is_deepspeed_enabled:
        return None
    if isinstance(model, PeftModel):
        return trained_tensors(trainer)
    whole: dict[str, Any] | None = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return whole
