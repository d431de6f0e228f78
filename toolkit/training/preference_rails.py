"""Guard rail of the preference stage: a policy that beats its pairs by giving up the chosen texts.

The loss sees the difference of two log-ratios alone. It goes on falling while both texts become ever less likely than
they were, the chosen ones included, and what the policy says instead is in no pair (likelihood displacement, Razin et
al. 2025). The rail reads TRL's logged numbers, so whatever it says can be read off ``metrics.jsonl``: with b the
recipe's ``beta``, a text's log-ratio to the reference is ``rewards / b`` nats.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from toolkit.config.schema import PreferenceGuardSpec

__all__ = ["PreferenceRails"]

_LOG = logging.getLogger("vlm_rlhf.training")
# Below this many nats a text is next to certain, and a ratio to it says nothing.
_LEAST_NATS = 1.0


class PreferenceRails(TrainerCallback):
    """Looks at every log line, of training and of validation pairs; ends the run after a checkpoint where told to.

    Args:
        spec: action and threshold.
        beta: of the trainer.

    Attributes:
        reason: why the run was ended; None while it goes on.
    """

    def __init__(self, spec: PreferenceGuardSpec, *, beta: float) -> None:
        self.spec, self.beta = spec, beta
        self.reason: str | None = None
        self._streaks: dict[str, int] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take in what a resumed run logged before it was interrupted."""
        for line in state.log_history:
            self.observe(line, quiet=True)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Warn, or ask for a checkpoint and the end."""
        found = self.observe(logs or {})
        if found is not None:
            self.reason = f"step {state.global_step}: {found}"
            control.should_save = control.should_training_stop = True

    def observe(self, line: Mapping[str, Any], *, quiet: bool = False) -> str | None:
        """Take in a log line; returns the reason to stop, or None. Warns where the recipe says so, once a spell.

        Every process logs the same numbers, which TRL gathers, and so they agree.
        """
        if self.spec.chosen_action == "off":
            return None
        for prefix, where in (("", "training"), ("eval_", "validation")):
            reward, logprob = line.get(f"{prefix}rewards/chosen"), line.get(f"{prefix}logps/chosen")
            if reward is None or logprob is None:
                continue
            text = self._given_up(float(reward), float(logprob))
            self._streaks[where] = streak = self._streaks.get(where, 0) + 1 if text else 0
            # Validation is the mean over all of its pairs, and rare: it is believed at once.
            patience = 1 if where == "validation" else self.spec.patience_logs
            if text is None or streak < patience:
                continue
            if self.spec.chosen_action == "stop":
                return f"on the {where} pairs {text}"
            if streak == patience and not quiet:
                _LOG.warning("on the %s pairs %s", where, text)
        return None

    def _given_up(self, reward: float, logprob: float) -> str | None:
        """A text, where the chosen ones cost too many more nats than under the reference."""
        lost = -reward / self.beta
        before = -logprob - lost
        if lost <= (self.spec.chosen_cost_ratio_max - 1) * max(before, _LEAST_NATS):
            return None
        return (
            f"the chosen texts cost {before + lost:.1f} nats each, {before:.1f} under the reference: the policy gives "
            "up what it was shown as good to make the rejected texts even less likely"
        )
