"""Phases 6 and 7: from a rollout and its scores to what the update needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.config.schema import PpoSpec
from toolkit.errors import RunFailed
from toolkit.rewards.base import RewardOutput
from toolkit.rl.advantages import Reduce, gae, masked_moments, potential_rewards, shaped_rewards, whiten
from toolkit.rl.estimators import completion_returns, over_tokens
from toolkit.rl.kl import k1, k3
from toolkit.rl.losses import explained_variance
from toolkit.rl.rollout import Rollout

__all__ = ["CriticFree", "Experience", "build_experience"]

# (returns (B,), usable (B,)) → advantages (B,): an estimator of ``toolkit.rl.estimators`` with its settings.
CriticFree = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Experience:
    """A rollout with advantages ``(B, T)``, and with a critic the returns ``(B, T)`` that it learns.

    ``mask`` is the rollout's, with the rows taken out whose reward failed. ``scores`` ``(B,)`` are the
    rewards after the missing-end penalty, before KL; 0 in rows taken out. ``kl_k1`` and ``kl_k3`` are nats a
    token. Without a critic ``returns``, ``explained_variance`` and ``value_spread`` (standard deviation of the values
    over that of the returns, all processes) are None.
    """

    rollout: Rollout
    mask: Tensor
    scores: Tensor
    kl_k1: Tensor
    kl_k3: Tensor
    advantages: Tensor
    returns: Tensor | None
    explained_variance: float | None
    value_spread: float | None = None


def build_experience(
    rollout: Rollout,
    output: RewardOutput,
    spec: PpoSpec,
    *,
    kl_coefficient: float,
    reduce: Reduce,
    critic_free: CriticFree | None = None,
    potentials: Tensor | None = None,
) -> Experience:
    """Phase 6: KL a token and shaped reward. Phase 7: advantages, returns, whitening over all processes.

    Args:
        rollout: this process's completions.
        output: their composite rewards.
        spec: estimator settings.
        kl_coefficient: of the k1 penalty in the reward.
        reduce: sums a tensor over processes.
        critic_free: the estimator of a run without a critic, whose rollouts have no values.
        potentials: ``(B, T)``, Φ of the prefix before each token: dense shaping with the same optimum.
    """
    device = rollout.mask.device
    scores = torch.as_tensor(output.scores, dtype=torch.float32, device=device)
    usable = torch.isfinite(scores)
    mask = rollout.mask * usable[:, None]
    ended = torch.tensor([item.ended for item in rollout.completions], device=device)
    scores = torch.where(usable, scores - spec.missing_eos_penalty * ~ended, 0.0)
    divergence = k1(rollout.logprobs, rollout.reference, mask)
    returns, explained, spread = None, None, None
    if critic_free is not None:
        whole = completion_returns(scores, divergence, mask, kl_coefficient)
        advantages = over_tokens(critic_free(whole, usable), mask)
    elif rollout.values is not None:
        rewards = shaped_rewards(scores, divergence, mask, kl_coefficient)
        if potentials is not None:
            rewards = rewards + potential_rewards(potentials.to(rewards), mask, gamma=spec.gamma)
        advantages, returns = gae(rewards, rollout.values, mask, gamma=spec.gamma, lam=spec.gae_lambda)
        explained, spread = _critic_quality(returns, rollout.values, mask, reduce)
    else:
        raise RunFailed("a rollout without values needs an estimator without a critic")
    if spec.whiten_advantages:
        advantages = whiten(advantages, mask, reduce=reduce)
    return Experience(
        rollout=rollout,
        mask=mask,
        scores=scores,
        kl_k1=divergence,
        kl_k3=k3(rollout.logprobs, rollout.reference, mask),
        advantages=advantages,
        returns=returns,
        explained_variance=explained,
        value_spread=spread,
    )


def _critic_quality(returns: Tensor, values: Tensor, mask: Tensor, reduce: Reduce) -> tuple[float, float]:
    """Explained variance, and the values' spread over the returns' (0.0 where the returns have none)."""
    count, _, error = masked_moments(returns - values, mask, reduce=reduce)
    _, _, variance = masked_moments(returns, mask, reduce=reduce)
    _, _, own = masked_moments(values, mask, reduce=reduce)
    spread = float((own / variance).sqrt()) if float(variance) > 1e-12 else 0.0
    return explained_variance(count, error, variance), spread
