"""KL estimates a token, and the controllers of the KL coefficient.

``log_ratio`` is ``log policy - log reference`` of a sampled token, in nats. k1 = log_ratio is unbiased and
is what the reward is charged with; k3 = exp(-log_ratio) - 1 + log_ratio has less variance, is never negative
and is what is logged (Schulman 2020, "Approximating KL divergence").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from toolkit.config.schema import KlSpec

__all__ = ["AdaptiveKl", "FixedKl", "KlController", "k1", "k3", "kl_controller"]


def k1(logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """``log policy - log reference`` a token ``(B, T)``, 0 on padding."""
    return torch.where(mask.bool(), logprobs - reference, 0.0)


def k3(logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """The non-negative low-variance estimate a token ``(B, T)``, 0 on padding."""
    log_ratio = k1(logprobs, reference, mask)
    return torch.exp(-log_ratio) - 1.0 + log_ratio


class KlController(Protocol):
    """Holds the KL coefficient and moves it after every iteration."""

    coefficient: float

    def update(self, kl_nats: float, completions: int) -> None:
        """Take in the mean KL a completion (sum of k1 over its tokens, nats) over ``completions`` samples."""
        ...

    def state_dict(self) -> dict[str, float]:
        """For a checkpoint."""
        ...

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """From a checkpoint."""
        ...


class FixedKl:
    """A constant coefficient."""

    def __init__(self, coefficient: float) -> None:
        self.coefficient = coefficient

    def update(self, kl_nats: float, completions: int) -> None:
        """Nothing moves."""

    def state_dict(self) -> dict[str, float]:
        """The coefficient."""
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take the coefficient over."""
        self.coefficient = float(state["coefficient"])


class AdaptiveKl(FixedKl):
    """Raises the coefficient while KL is above ``target_nats`` a completion, lowers it below.

    Ziegler et al. 2019, section 2.2: ``β ← β (1 + clip(KL/target - 1, -0.2, 0.2) · completions / horizon)``.
    """

    def __init__(self, coefficient: float, *, target_nats: float, horizon: float) -> None:
        super().__init__(coefficient)
        self.target_nats, self.horizon = target_nats, horizon

    def update(self, kl_nats: float, completions: int) -> None:
        """Move the coefficient by at most 20 % × ``completions / horizon``, and to no less than 0.

        Where no completion could be used (``kl_nats`` is NaN) it stays.
        """
        if not math.isfinite(kl_nats):
            return
        error = min(max(kl_nats / self.target_nats - 1.0, -0.2), 0.2)
        self.coefficient *= max(0.0, 1.0 + error * completions / self.horizon)


def kl_controller(spec: KlSpec) -> KlController:
    """The controller a recipe asks for."""
    if spec.controller == "adaptive":
        return AdaptiveKl(spec.coefficient, target_nats=spec.target_nats, horizon=spec.horizon)
    return FixedKl(spec.coefficient)
