"""Atomic checkpoints for transformers' ``Trainer``: written to a staging folder, then renamed into the run
directory.

Only public hooks of the trainer are used. The trainer believes that its output directory is the staging
folder; when a checkpoint is complete, ``on_save`` moves it to its place. A process killed at any moment
leaves whole checkpoints.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from toolkit.runs.checkpoints import prune_checkpoints

__all__ = ["AtomicCheckpoints"]

_STATE_FILE = "trainer_state.json"


class AtomicCheckpoints(TrainerCallback):
    """Moves finished checkpoints from the trainer's output directory to ``directory`` and prunes old ones
    there.

    It also makes the trainer log whenever it saves: the logged loss is a mean since the last log line, and
    without that a resumed run would average over other steps than the uninterrupted one.

    Args:
        directory: the run directory.
        keep: how many checkpoints stay; the best one (if evaluated) stays beside them.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self.keep = keep

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove what a killed process left half-written."""
        if state.is_world_process_zero:
            shutil.rmtree(args.output_dir, ignore_errors=True)
        PartialState().wait_for_everyone()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log at every save."""
        if control.should_save:
            control.should_log = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the checkpoint that was just written to its place."""
        PartialState().wait_for_everyone()
        name = f"checkpoint-{state.global_step}"
        written, place = Path(args.output_dir) / name, self.directory / name
        if state.best_model_checkpoint == str(written):
            state.best_model_checkpoint = str(place)
        if state.is_world_process_zero:
            state.save_to_json(str(written / _STATE_FILE))
            _sync_files(written)
            if place.exists():
                shutil.rmtree(place)
            os.replace(written, place)
            best = None if state.best_model_checkpoint is None else Path(state.best_model_checkpoint)
            prune_checkpoints(self.directory, keep=self.keep, protect=best)
        PartialState().wait_for_everyone()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove the empty staging folder."""
        if state.is_world_process_zero:
            shutil.rmtree(args.output_dir, ignore_errors=True)


def _sync_files(directory: Path) -> None:
    """Flush every file below ``directory`` to disk before the folder gets its final name."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
