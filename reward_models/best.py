"""Keeping the best reward model of a run, and stopping when it gets no better."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from toolkit.runs.atomic import atomic_directory
from toolkit.runs.directory import RunDirectory
from toolkit.training.partitioned import load_trained_tensors, trained_tensors

if TYPE_CHECKING:
    from reward_models.trainer import RewardTrainer

__all__ = ["BestModel", "best_evaluation"]

_LOG = logging.getLogger("vlm_rlhf.reward")
_FOLDER, _FILE = "best", "model.safetensors"


def best_evaluation(history: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """(step of the best evaluation, evaluations since then) in a trainer's log history, or None without one.

    Best is the highest ``eval_accuracy``, among equals the lowest ``eval_loss`` (in four decimals), among
    those the first.
    """
    seen = [line for line in history if "eval_accuracy" in line]
    if not seen:
        return None
    best = max(
        range(len(seen)), key=lambda i: (seen[i]["eval_accuracy"], -round(seen[i]["eval_loss"], 4), -i)
    )
    return int(seen[best]["step"]), len(seen) - 1 - best


class BestModel(TrainerCallback):
    """Writes the trained tensors to ``best/`` at every evaluation that is the best so far, and stops early.

    Everything is derived from the log history, which checkpoints carry: a resumed run decides as the
    uninterrupted one.

    Args:
        trainer: whose tensors are kept.
        directory: the run.
        patience: evaluations without a better one after which training stops; None never stops.
    """

    def __init__(self, trainer: RewardTrainer, directory: RunDirectory, patience: int | None) -> None:
        self.trainer = trainer
        self.directory = directory
        self.patience = patience

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep or stop."""
        found = best_evaluation(state.log_history)
        if found is None:
            return
        best_step, waited = found
        if best_step == state.global_step:
            self._keep(state)
        if self.patience is not None and waited >= self.patience:
            _LOG.info("no better evaluation for %d times: stopping; best was step %d", waited, best_step)
            # Without a checkpoint: resumed from here, the run would do one step more.
            control.should_training_stop, control.should_save = True, False

    def restore(self) -> int | None:
        """Load the best tensors into the model; returns their step, or None when nothing was evaluated."""
        path = self.directory.path / _FOLDER / _FILE
        if best_evaluation(self.trainer.state.log_history) is None or not path.is_file():
            return None
        with safe_open(str(path), framework="pt") as file:
            step = int(file.metadata()["step"])
        load_trained_tensors(self.trainer, load_file(str(path)))
        return step

    def _keep(self, state: TrainerState) -> None:
        tensors = trained_tensors(self.trainer)
        if state.is_world_process_zero:
            with atomic_directory(self.directory.path / _FOLDER) as folder:
                save_file(tensors, str(folder / _FILE), metadata={"step": str(state.global_step)})
