"""The three losses of PPO as sums over tokens, so that any split into processes and minibatches adds up.

Each function returns sums over the masked tokens. The caller divides by the number of tokens of the *global*
minibatch: means a process or accumulation step would weight ragged batches differently (design: 8×1 = 1×8).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["PolicyLoss", "ValueLoss", "clipped_policy_loss", "clipped_value_loss", "explained_variance"]


class PolicyLoss(NamedTuple):
    """Sums over tokens: the loss (differentiable), clipped tokens, and the k3 estimate of KL(old, new)."""

    loss: Tensor
    clipped: Tensor
    kl_k3: Tensor


class ValueLoss(NamedTuple):
    """Sums over tokens: half the squared error (differentiable), and clipped tokens."""

    loss: Tensor
    clipped: Tensor


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, clip: float
) -> PolicyLoss:
    """Minus the clipped surrogate (Schulman et al. 2017, equation 7), summed over masked tokens.

    All tensors are ``(B, T)``; ``old_logprobs`` are the behaviour policy's own, at the sampling temperature.
    """
    log_ratio = torch.where(mask.bool(), logprobs - old_logprobs, 0.0)
    ratio = torch.exp(log_ratio)
    plain = -advantages * ratio
    bounded = -advantages * torch.clamp(ratio, 1.0 - clip, 1.0 + clip)
    clipped = ((bounded > plain) & mask.bool()).sum()
    with torch.no_grad():
        # k3 of Schulman (2020), "Approximating KL divergence": never negative, low variance.
        kl = ((ratio - 1.0) - log_ratio).sum()
    return PolicyLoss((torch.maximum(plain, bounded) * mask).sum(), clipped, kl)


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip: float | None
) -> ValueLoss:
    """Half the squared error to the returns, the move from ``old_values`` clipped, summed over masked tokens.

    The larger of the plain and the clipped error is taken, as in the official PPO code (baselines, ppo2).
    With ``clip`` None the plain error is taken.
    """
    plain = (values - returns).square()
    if clip is None:
        return ValueLoss(0.5 * (plain * mask).sum(), torch.zeros((), dtype=torch.long, device=values.device))
    bounded = (old_values + torch.clamp(values - old_values, -clip, clip) - returns).square()
    clipped = ((bounded > plain) & mask.bool()).sum()
    return ValueLoss(0.5 * (torch.maximum(plain, bounded) * mask).sum(), clipped)


def explained_variance(count: Tensor, error_variance: Tensor, return_variance: Tensor) -> float:
    """``1 - var(returns - values) / var(returns)``; 0.0 without spread in the returns or without tokens.

    Healthy runs were seen between -0.01 and 0.26: a low value alone is no fault.
    """
    if float(count) == 0.0 or float(return_variance) <= 1e-12:
        return 0.0
    return 1.0 - float(error_variance / return_variance)
