"""Guard rails that need memory: drifts against the first iteration, and the proxy against held-out scores.

Each rail has an action (``off | warn | stop``) and a threshold in ``GuardSpec``; why the thresholds are what they
are stands in docs/ppo.md. The numbers come from the log, so whatever a rail says can be read off ``metrics.jsonl``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from toolkit.config.schema import GuardSpec

__all__ = ["CRITIC_WINDOW", "GuardRails"]

logger = logging.getLogger("vlm_rlhf.rl")

Numbers = Mapping[str, float]
# A critic is judged over this many iterations: explained variance jumps about from one to the next.
CRITIC_WINDOW = 10
# A fall has to be this many standard errors large, or it may be the luck of a small validation set.
ERRORS = 3.0
# Values whose spread is below this share of the returns' spread say the same of every state.
DEAD_SPREAD = 0.01
# The reward's trend compares the means of this many iterations at the start and now.
TREND = 3


@dataclass
class _Memory:
    """What the rails remember; all of it goes into the checkpoint."""

    first: dict[str, float] = field(default_factory=dict)
    streaks: dict[str, int] = field(default_factory=dict)
    start_rewards: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    critic: list[list[float]] = field(default_factory=list)
    best: dict[str, list[float]] = field(default_factory=dict)


class GuardRails:
    """Looks at the numbers of every iteration and evaluation. Every process sees the same ones and agrees."""

    def __init__(self, spec: GuardSpec) -> None:
        self.spec = spec
        self._memory = _Memory()
        self._rails: dict[str, tuple[str, Callable[[Numbers], str | None]]] = {
            "kl": (spec.kl_action, self._kl),
            "length": (spec.length_action, self._length),
            "vocabulary": (spec.vocabulary_action, self._vocabulary),
            "repetition": (spec.repetition_action, self._repetition),
            "bad_ending": (spec.bad_ending_action, self._bad_ending),
            "zero_variance": (spec.zero_variance_action, self._zero_variance),
        }

    def observe(self, numbers: Numbers) -> str | None:
        """Take in an iteration's metrics; returns the reason to stop, or None. Warns where the recipe says so."""
        memory = self._memory
        if not memory.first:
            memory.first = {name: value for name, value in numbers.items() if math.isfinite(value)}
        # On a scale that stays: normalised by group or by running statistics the total's mean is about 0 for ever.
        reward = numbers.get("reward/total/calibrated", numbers.get("reward/total", math.nan))
        if math.isfinite(reward):
            memory.start_rewards = [*memory.start_rewards, reward][:TREND]
            memory.rewards = [*memory.rewards, reward][-TREND:]
        reasons = [
            self._act(name, action, rail(numbers), patience=self.spec.patience_iterations)
            for name, (action, rail) in self._rails.items()
            if action != "off"
        ]
        if self.spec.critic_action != "off" and "value/explained_variance" in numbers:
            memory.critic = [
                *memory.critic,
                [numbers["value/explained_variance"], numbers["value/spread"]],
            ][-CRITIC_WINDOW:]
            reasons.append(self._act("critic", self.spec.critic_action, self._critic(), patience=1))
        return next((text for text in reasons if text is not None), None)

    def observe_held_out(self, standardised: Mapping[str, tuple[float, float]]) -> str | None:
        """Take in an evaluation (term → mean and standard error); returns the reason to stop, or None."""
        if self.spec.divergence_action == "off":
            return None
        text = self._diverged(standardised)
        for name, (mean, error) in standardised.items():
            if name not in self._memory.best or mean > self._memory.best[name][0]:
                self._memory.best[name] = [mean, error]
        return self._act("divergence", self.spec.divergence_action, text, patience=1)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self._memory)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint; one of an earlier version is empty."""
        self._memory = _Memory(**state)

    # ---- the rails: a text where something is wrong --------------------------------------------------------

    def _act(self, name: str, action: str, text: str | None, *, patience: int) -> str | None:
        """Count how long ``text`` lasts; the reason to stop, once it lasted long enough. Warns once a spell."""
        streak = self._memory.streaks.get(name, 0) + 1 if text is not None else 0
        self._memory.streaks[name] = streak
        if text is None or streak < patience:
            return None
        if action == "stop":
            return text
        if streak == patience:
            logger.warning("%s", text)
        return None

    def _kl(self, now: Numbers) -> str | None:
        found = now["kl/k1_nats"] / max(now["rollout/tokens"], 1.0)
        limit = self.spec.kl_max_nats_per_token
        if not found > limit:
            return None
        return f"KL to the reference is {found:.2f} nats a token, above {limit:g}: the policy has left the SFT model"

    def _length(self, now: Numbers) -> str | None:
        first, found = self._memory.first.get("rollout/tokens", 0.0), now["rollout/tokens"]
        limit = self.spec.length_ratio_max
        if first <= 0 or first / limit <= found <= first * limit:
            return None
        return f"completions have {found:.1f} tokens, {first:.1f} at the start: over a factor of {limit:g}"

    def _vocabulary(self, now: Numbers) -> str | None:
        key, limit = "rollout/distinct_word_fraction", self.spec.vocabulary_ratio_min
        first = self._memory.first.get(key, 0.0)
        if not now[key] < limit * first:
            return None
        return f"{now[key]:.1%} of the words are different ones, {first:.1%} at the start: the vocabulary collapses"

    def _repetition(self, now: Numbers) -> str | None:
        return self._rise(
            now,
            "rollout/repeated_fraction",
            self.spec.repetition_rise_max,
            "of the 3-grams of a completion repeat",
        )

    def _bad_ending(self, now: Numbers) -> str | None:
        return self._rise(
            now, "rollout/bad_ending_fraction", self.spec.bad_ending_rise_max, "of the captions end badly"
        )

    def _rise(self, now: Numbers, key: str, limit: float, what: str) -> str | None:
        first = self._memory.first.get(key, math.nan)
        if not now.get(key, math.nan) > first + limit:
            return None
        return f"{now[key]:.0%} {what}, {first:.0%} at the start"

    def _zero_variance(self, now: Numbers) -> str | None:
        found, limit = now.get("reward/flat_fraction", math.nan), self.spec.zero_variance_fraction_max
        if not found > limit:
            return None
        return f"the scores of {found:.0%} of the groups are all equal, above {limit:.0%}: nothing is left to learn"

    def _critic(self) -> str | None:
        window, limit = self._memory.critic, self.spec.explained_variance_min
        if len(window) < CRITIC_WINDOW:
            return None
        explained = sum(pair[0] for pair in window) / len(window)
        if explained < limit:
            where = f"over {len(window)} iterations, below {limit:g}"
            return f"explained variance is {explained:.2f} {where}: the critic does harm"
        if all(pair[1] < DEAD_SPREAD for pair in window):
            return f"the critic gave every state the same value for {len(window)} iterations"
        return None

    def _diverged(self, standardised: Mapping[str, tuple[float, float]]) -> str | None:
        memory = self._memory
        if not memory.rewards or _mean(memory.rewards) <= _mean(memory.start_rewards):
            return None
        for name, (mean, error) in standardised.items():
            if name not in memory.best:
                continue
            best, best_error = memory.best[name]
            fallen = best - mean
            if fallen > max(self.spec.divergence_drop_stds, ERRORS * math.hypot(error, best_error)):
                return (
                    f"the training reward rose from {_mean(memory.start_rewards):.3f} to {_mean(memory.rewards):.3f} "
                    f"while val/{name} fell by {fallen:.2f} standard deviations: the reward is being gamed"
                )
        return None


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
