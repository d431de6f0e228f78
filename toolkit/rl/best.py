"""The policy with the best held-out score so far, kept in ``best/`` beside the checkpoints."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import RecipeError
from toolkit.models.loading import LoadedVlm
from toolkit.rl.engine import Engine
from toolkit.rl.state import save_policy
from toolkit.runs.atomic import atomic_directory

__all__ = ["NOTE_FILE", "BestPolicy"]

logger = logging.getLogger("vlm_rlhf.rl")

NOTE_FILE = "held_out.json"


class BestPolicy:
    """Writes ``folder`` whenever an evaluation beats all before it: adapter, processor and ``held_out.json``.

    Attributes:
        step: iteration of the best evaluation (0 is the starting policy); None before the first.
        value: its score; higher is better.
        start: the score of the starting policy; None before its evaluation, and where that gave none.
        newest: the score of the newest evaluation in this process; None before the first.
    """

    def __init__(self, folder: Path, *, metric: str, required: bool) -> None:
        """Keep the policy with the highest ``metric``; unless ``required`` an evaluation may lack it."""
        self.folder, self.metric, self.required = folder, metric, required
        self.step: int | None = None
        self.value = -math.inf
        self.start: float | None = None
        self.newest: float | None = None

    def consider(self, step: int, numbers: Mapping[str, float], vlm: LoadedVlm, engine: Engine) -> bool:
        """Keep the policy as it is now if ``numbers`` are the best so far; returns whether they are. Logs the score.

        An equal score does not replace an earlier policy, which is nearer to the reference.

        Raises:
            RecipeError: the evaluation has no such metric.
        """
        value = numbers.get(self.metric)
        if value is None and not self.required:
            return False
        if value is None:
            raise RecipeError(
                "ppo.best_metric", f"expected one of {', '.join(sorted(numbers))}, found {self.metric!r}"
            )
        self.newest = value
        if step == 0 and math.isfinite(value):
            self.start = float(value)
        better = value > self.value
        if better:
            self.step, self.value = step, float(value)
        if engine.is_main:
            logger.info("%s", self._sentence(step, value))
        if not better:
            return False
        note = {"iteration": step, "metric": self.metric, "value": self.value, "numbers": dict(numbers)}
        save_policy(self.folder, vlm, engine, notes={NOTE_FILE: note})
        return True

    def _sentence(self, step: int, value: float) -> str:
        """The score of the evaluation at ``step``, beside the first and the best one."""
        beside = [f"start {self.start:.3f}"] if self.start is not None and step else []
        beside += [f"best {self.value:.3f} at {self.step}"] if self.step is not None and step else []
        told = f" ({', '.join(beside)})" if beside else ""
        return f"iteration {step}: held-out {self.metric} {value:.3f}{told}"

    def write_final(
        self, final: Path, vlm: LoadedVlm, engine: Engine, *, choice: str, iteration: int
    ) -> dict[str, Any]:
        """Write ``final``: the policy as it is (``last``) or a copy of the best one; returns what it holds."""
        facts: dict[str, Any] = {"iteration": iteration, "policy": "last"}
        if self.step is not None:
            facts |= {"best_iteration": self.step, f"best_{self.metric}": self.value}
        if choice == "best" and self.step is not None:
            facts |= {"iteration": self.step, "policy": "best"}
            if engine.is_main:
                with atomic_directory(final) as staging:
                    shutil.copytree(self.folder, staging, dirs_exist_ok=True)
            engine.accelerator.wait_for_everyone()
        else:
            save_policy(final, vlm, engine)
        logger.info("final/ holds the %(policy)s policy, of iteration %(iteration)d", facts)
        return facts

    def told(self) -> str:
        """Where the best policy lies, to go on a message; empty where it is the one that training began with."""
        return f"; {self.folder} holds the policy of iteration {self.step}" if self.step else ""

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        if self.step is None:
            return {}
        start = {} if self.start is None else {"start": self.start}
        return {"step": self.step, "value": self.value, **start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint; one of an earlier version is empty or lacks ``start``."""
        if state:
            self.step, self.value = int(state["step"]), float(state["value"])
            self.start = float(state["start"]) if "start" in state else None
