"""Trainer callbacks: lines of ``metrics.jsonl``, the progress line, and a polite stop on a signal."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from toolkit.errors import RunFailed
from toolkit.runs.metrics import MetricsLog
from toolkit.runs.progress import Progress
from toolkit.runs.signals import StopSignals

__all__ = ["MetricsLines", "ProgressLine", "StopOnSignal"]

_LOG = logging.getLogger("vlm_rlhf.training")
_LEFT_OUT = ("runtime", "samples_per_second", "steps_per_second", "total_flos", "eval_num_tokens")


class MetricsLines(TrainerCallback):
    """One line of ``metrics.jsonl`` for each log of the trainer, and a readable line on stderr.

    Timings are left out, so that a resumed run and an uninterrupted one write the same lines. On resume,
    lines after the checkpoint are dropped and TRL's token counter, which restarts at zero, goes on from
    where it was.

    Raises:
        RunFailed: the loss is not a finite number.
    """

    def __init__(self, log: MetricsLog) -> None:
        self.log = log
        self._tokens_before = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget lines after the checkpoint that the run resumes from."""
        seen = [line["num_tokens"] for line in state.log_history if "num_tokens" in line]
        self._tokens_before = seen[-1] if seen else 0.0
        if state.is_world_process_zero:
            self.log.truncate_after(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write one line."""
        values = {name: value for name, value in (logs or {}).items() if not name.endswith(_LEFT_OUT)}
        if "num_tokens" in values:
            values["num_tokens"] += self._tokens_before
            state.log_history[-1]["num_tokens"] = values["num_tokens"]
        if values.keys() <= {"train_loss", "epoch"}:
            return
        if state.is_world_process_zero:
            self.log.write(state.global_step, **values)
            _LOG.info("step %d/%d  %s", state.global_step, state.max_steps, _readable(values))
        loss = values.get("loss")
        if isinstance(loss, float) and not math.isfinite(loss):
            raise RunFailed(
                f"the loss is {loss} at step {state.global_step}",
                remedy="lower the learning rate, or look for rows with an empty completion",
            )


class ProgressLine(TrainerCallback):
    """Steps done, rate and time left on stderr.

    Args:
        label: name of the stage.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._bar: Progress | None = None
        self._note = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the line."""
        self._bar = Progress(state.max_steps, self.label, start=state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count a step."""
        if self._bar is not None:
            self._bar.update(note=self._note)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the newest loss on the line."""
        if logs and "loss" in logs:
            self._note = f"loss {logs['loss']:.4g}"

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the line."""
        if self._bar is not None:
            self._bar.close()


class StopOnSignal(TrainerCallback):
    """Writes a checkpoint and ends training after the step in which any process received a signal."""

    def __init__(self, signals: StopSignals) -> None:
        self.signals = signals

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint and the end."""
        if self._requested_anywhere(args):
            if not self.signals.requested:
                self.signals.request()
            control.should_save = control.should_training_stop = True

    def _requested_anywhere(self, args: TrainingArguments) -> bool:
        if args.world_size == 1:
            return self.signals.requested
        flag = torch.tensor(float(self.signals.requested), device=args.device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag.item())


def _readable(values: dict[str, Any]) -> str:
    """``name value`` pairs of one log line, floats in four digits."""
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
        if name != "epoch"
    )
