"""Atomic checkpoints for the transformers ``Trainer``: written to a staging folder, then moved to the run.

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

from toolkit.runs.atomic import atomic_directory
from toolkit.runs.checkpoints import checkpoints
from toolkit.runs.directory import RunDirectory

__all__ = ["AtomicCheckpoints", "resumable_checkpoint"]

STATE_FILE = "trainer_state.json"
"""The file without which a folder is no checkpoint of transformers' ``Trainer``."""


def resumable_checkpoint(directory: RunDirectory) -> Path | None:
    """The newest complete checkpoint of a run that has steps left to do, or None."""
    for path in reversed(checkpoints(directory.path, required=[STATE_FILE])):
        state = TrainerState.load_from_json(str(path / STATE_FILE))
        if state.global_step < state.max_steps:
            return path
    return None


class AtomicCheckpoints(TrainerCallback):
    """Moves finished checkpoints from the trainer's output directory to the run and prunes old ones.

    It also makes the trainer log whenever it saves: the logged loss is a mean since the last log line, and
    without that a resumed run would average over other steps than the uninterrupted one. The last step gets
    no checkpoint (``final/`` follows at once), unless the best one is wanted at the end: resumed from
    there, the trainer would run one step too many.

    Args:
        directory: the run directory.
        keep: how many checkpoints stay, the best one (if evaluated) among them.
    """

    def __init__(self, directory: RunDirectory, keep: int) -> None:
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
        """Log at every save and at the end; no save at the end."""
        at_end = state.global_step >= state.max_steps
        if control.should_save or at_end:
            control.should_log = True
        if at_end and not args.load_best_model_at_end:
            control.should_save = False

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the checkpoint that was just written to its place."""
        PartialState().wait_for_everyone()
        place = self.directory.checkpoint_path(state.global_step)
        written = Path(args.output_dir) / place.name
        if state.best_model_checkpoint == str(written):
            state.best_model_checkpoint = str(place)
        if state.is_world_process_zero:
            state.save_to_json(str(written / STATE_FILE))
            with atomic_directory(place) as temporary:
                for child in written.iterdir():
                    os.replace(child, temporary / child.name)
            best = None if state.best_model_checkpoint is None else Path(state.best_model_checkpoint)
            self.directory.prune_checkpoints(self.keep, keep=best)
        PartialState().wait_for_everyone()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove the empty staging folder."""
        if state.is_world_process_zero:
            shutil.rmtree(args.output_dir, ignore_errors=True)
