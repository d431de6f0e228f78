"""From scores to advantages: per-token rewards, generalised advantage estimation, whitening.

All functions are pure. Tensors are ``(B, T)`` over completion tokens; ``mask`` is 1 on the sampled tokens
(the end token included) and 0 on padding, which may only follow the sampled tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["gae", "masked_moments", "potential_rewards", "shaped_rewards", "whiten"]

Reduce = Callable[[Tensor], Tensor]


def _same(values: Tensor) -> Tensor:
    return values


def shaped_rewards(scores: Tensor, kl: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """Reward a token ``(B, T)``: minus ``coefficient`` × KL, plus the score on the last sampled token.

    Ziegler et al. 2019 ("Fine-tuning language models from human preferences"), equation 2. ``scores`` is
    ``(B,)``; ``kl`` is the k1 estimate ``log policy - log reference`` in nats. A row without sampled tokens
    is 0.
    """
    rewards = -coefficient * kl * mask
    lengths = mask.sum(dim=1).long()
    rows = torch.nonzero(lengths > 0).squeeze(1)
    rewards[rows, lengths[rows] - 1] += scores[rows].to(rewards.dtype)
    return rewards


def potential_rewards(potentials: Tensor, mask: Tensor, *, gamma: float) -> Tensor:
    """``(B, T)``: γ Φ(state after the token) − Φ(state before it), with Φ = 0 once the completion is over.

    ``potentials[:, t]`` is Φ of the prefix before token ``t``. Ng, Harada and Russell 1999: rewards of this form
    change no policy's rank, for the discounted return of every completion changes by −Φ(empty prefix).
    """
    current = potentials * mask
    following = torch.nn.functional.pad(current[:, 1:], (0, 1))
    return (gamma * following - current) * mask


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns ``(B, T)``, zero on padding (Schulman et al. 2016, equation 16).

    ``values[:, t]`` estimates the return before token ``t`` is chosen. The episode ends with the last sampled
    token: nothing is bootstrapped past it, and a completion cut at the length limit ends there as well.
    """
    values = values * mask
    advantages = torch.zeros_like(rewards)
    carried = torch.zeros_like(rewards[:, 0])
    following = torch.zeros_like(carried)
    for step in reversed(range(rewards.shape[1])):
        delta = rewards[:, step] + gamma * following - values[:, step]
        # The mask keeps padding at exactly zero, so the last sampled token sees no value and no advantage
        # after it.
        carried = (delta + gamma * lam * carried) * mask[:, step]
        advantages[:, step] = carried
        following = values[:, step]
    return advantages, (advantages + values) * mask


def masked_moments(values: Tensor, mask: Tensor, *, reduce: Reduce = _same) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and biased variance of ``values`` where ``mask`` is 1, over all processes.

    ``reduce`` sums a tensor over the processes. An empty mask gives zeros.
    """
    weights = mask.to(torch.float64)
    exact = values.to(torch.float64)
    sums = reduce(torch.stack([weights.sum(), (exact * weights).sum()]))
    count = sums[0].clamp(min=1.0)
    mean = sums[1] / count
    deviation = reduce(((exact - mean).square() * weights).sum())
    return sums[0], mean, deviation / count


def whiten(values: Tensor, mask: Tensor, *, reduce: Reduce = _same, epsilon: float = 1e-8) -> Tensor:
    """``values`` with mean 0 and variance 1 over the masked tokens of all processes; 0 on padding.

    Equal values (no spread) become 0, not noise divided by ``epsilon``.
    """
    _, mean, variance = masked_moments(values, mask, reduce=reduce)
    scale = torch.rsqrt(variance + epsilon)
    return (((values.to(torch.float64) - mean) * scale) * mask).to(values.dtype)
