"""Losses on pairs of scores: pure functions of tensors, each row its own number.

Scores are log-odds: sigmoid(chosen − rejected) is the probability that the chosen completion is preferred
(Bradley and Terry 1952; for reward models Ouyang et al. 2022, equation 1).
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

__all__ = ["bradley_terry", "centring", "pair_loss"]


def bradley_terry(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    *,
    margin: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Negative log-likelihood of the preference: −log sigmoid(chosen − rejected − margin).

    Args:
        chosen: scores of the preferred completions, (B,).
        rejected: scores of the others, (B,).
        margin: how much better the chosen one is at least, (B,), in the unit of the scores
            (Touvron et al. 2023, "Llama 2", equation 2); None means 0.
        label_smoothing: share of labels believed to be flipped, in [0, 0.5): the loss is the expectation
            over a label that is wrong with this probability (the conservative loss of Mitchell 2023).

    Returns:
        Loss of every pair, (B,), ≥ 0.

    Raises:
        ValueError: the shapes differ, or ``label_smoothing`` is out of range.
    """
    if chosen.shape != rejected.shape or (margin is not None and margin.shape != chosen.shape):
        raise ValueError(
            f"scores of chosen and rejected, and margins, need one shape (B,): found {tuple(chosen.shape)}, "
            f"{tuple(rejected.shape)}{'' if margin is None else f', {tuple(margin.shape)}'}"
        )
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing: expected a number in [0, 0.5), found {label_smoothing}")
    difference = chosen - rejected if margin is None else chosen - rejected - margin
    loss = -(1.0 - label_smoothing) * logsigmoid(difference)
    if label_smoothing > 0.0:
        loss = loss - label_smoothing * logsigmoid(-difference)
    return loss


def centring(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """(chosen + rejected)², (B,): pulls the mean score to 0, which the preference leaves free.

    Eisenstein et al. 2023, "Helping or Herding?", equation 2. Centred scores can be added to other rewards.
    """
    return (chosen + rejected).square()


def pair_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    *,
    margin: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    centring_weight: float = 0.0,
) -> torch.Tensor:
    """Mean over the pairs of ``bradley_terry`` plus ``centring_weight`` × ``centring``; a scalar tensor.

    Args:
        chosen: (B,), B ≥ 1.
        rejected: (B,).
        margin: (B,) or None.
        label_smoothing: see ``bradley_terry``.
        centring_weight: see ``centring``.
    """
    loss = bradley_terry(chosen, rejected, margin=margin, label_smoothing=label_smoothing)
    if centring_weight > 0.0:
        loss = loss + centring_weight * centring(chosen, rejected)
    return loss.mean()
