"""Trainer callbacks that write ``metrics.jsonl`` and show progress."""

from __future__ import annotations

import logging
import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from toolkit.errors import RunFailed
from toolkit.runs.metrics import MetricsLog

__all__ = ["MetricsLines"]

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
        if values.keys() <= {"train_loss", "epoch"} or not state.is_world_process_zero:
            return
        self.log.write(state.global_step, **values)
        _LOG.info("step %d/%d  %s", state.global_step, state.max_steps, _readable(values))
        loss = values.get("loss")
        if isinstance(loss, float) and not math.isfinite(loss):
            raise RunFailed(
                f"the loss is {loss} at step {state.global_step}",
                remedy="lower the learning rate, or look for rows with an empty completion",
            )


def _readable(values: dict[str, Any]) -> str:
    shown = {name: value for name, value in values.items() if name != "epoch"}
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in shown.items()
    )
