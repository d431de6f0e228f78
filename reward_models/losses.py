"""Losses on scores: pure functions of tensors, each row its own number.

Scores are log-odds: sigmoid(chosen − rejected) is the probability that the chosen completion is preferred
(Bradley and Terry 1952; for reward models Ouyang et al. 2022, equation 1).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["bradley_terry", "centring", "graded", "plackett_luce", "rao_kupper"]


def bradley_terry(
    chosen: Tensor,
    rejected: Tensor,
    *,
    margin: Tensor | None = None,
    label_smoothing: float = 0.0,
    tie: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of the preference: −log sigmoid(chosen − rejected − margin).

    Args:
        chosen: scores of the preferred completions, (B,).
        rejected: scores of the others, (B,).
        margin: how much better the chosen one is at least, (B,), in the unit of the scores
            (Touvron et al. 2023, "Llama 2", equation 2); None means 0.
        label_smoothing: share of labels believed to be flipped, in [0, 0.5): the loss is the expectation
            over a label that is wrong with this probability (the conservative loss of Mitchell 2023).
        tie: (B,) bool: pairs of which neither is preferred count as half a win of each, without margin.

    Returns:
        Loss of every pair, (B,), ≥ 0.

    Raises:
        ValueError: the shapes differ, or ``label_smoothing`` is out of range.
    """
    _same_shape(chosen, rejected, margin, tie)
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing: expected a number in [0, 0.5), found {label_smoothing}")
    difference = chosen - rejected
    shifted = difference if margin is None else difference - margin
    loss = -(1.0 - label_smoothing) * logsigmoid(shifted)
    if label_smoothing > 0.0:
        loss = loss - label_smoothing * logsigmoid(-shifted)
    if tie is None:
        return loss
    return torch.where(tie, -0.5 * (logsigmoid(difference) + logsigmoid(-difference)), loss)


def graded(chosen: Tensor, rejected: Tensor, agreement: Tensor) -> Tensor:
    """Cross-entropy with the share of raters that prefer the chosen completion, (B,).

    −a log sigmoid(d) − (1 − a) log sigmoid(−d) with d = chosen − rejected: the mean loss of Bradley and Terry
    over the raters, each of them one comparison, those who see no difference half a win of each.

    Args:
        chosen: (B,).
        rejected: (B,).
        agreement: (B,), in [0, 1].
    """
    _same_shape(chosen, rejected, agreement, None)
    difference = chosen - rejected
    return -agreement * logsigmoid(difference) - (1.0 - agreement) * logsigmoid(-difference)


def rao_kupper(chosen: Tensor, rejected: Tensor, *, tie: Tensor, threshold: float) -> Tensor:
    """Negative log-likelihood where raters may see no difference, (B,) (Rao and Kupper 1967, equation 2.3).

    With θ = exp(threshold) and π = exp(score), P(win) = π₁ / (π₁ + θ π₂) and
    P(tie) = (θ² − 1) π₁ π₂ / ((π₁ + θ π₂) (θ π₁ + π₂)).

    Args:
        chosen: (B,).
        rejected: (B,).
        tie: (B,) bool.
        threshold: difference of scores below which raters mostly see none; > 0.

    Raises:
        ValueError: the shapes differ, or ``threshold`` is not positive.
    """
    _same_shape(chosen, rejected, None, tie)
    if not threshold > 0.0:
        raise ValueError(f"threshold: expected a number above 0, found {threshold}")
    difference = chosen - rejected
    win = -logsigmoid(difference - threshold)
    share = torch.expm1(difference.new_tensor(2.0 * threshold)).log()
    return torch.where(tie, win - logsigmoid(-difference - threshold) - share, win)


def plackett_luce(scores: Tensor, ranks: Tensor) -> Tensor:
    """Negative log-likelihood of whole rankings, (B,), divided by their number of choices.

    The best is chosen among all, the second among the rest, …, each with the softmax of the scores (Luce 1959,
    Plackett 1975; as a loss: ListMLE, Xia et al. 2008). Completions of one rank are each chosen among
    themselves and all below (Breslow 1974); those of the last rank are not chosen. Two completions give
    Bradley and Terry's loss.

    Args:
        scores: (B, K).
        ranks: (B, K) integers, 0 best; −1 marks places without a completion.

    Returns:
        (B,); 0 for rows with one rank only.
    """
    if scores.shape != ranks.shape or scores.dim() != 2:
        raise ValueError(
            f"expected scores and ranks (B, K), found {tuple(scores.shape)} and {tuple(ranks.shape)}"
        )
    real = ranks >= 0
    rivals = real.unsqueeze(1) & (ranks.unsqueeze(1) >= ranks.unsqueeze(2))  # (B, chosen, rival)
    among = scores.unsqueeze(1).expand_as(rivals).masked_fill(~rivals, -torch.inf)
    is_choice = real & (ranks < ranks.amax(dim=1, keepdim=True))
    # A place without a completion has no rival; its own score keeps its unused logarithm finite.
    safe = torch.where(real.unsqueeze(2), among, scores.unsqueeze(2))
    cost = (safe.logsumexp(dim=2) - scores).masked_fill(~is_choice, 0.0)
    return cost.sum(dim=1) / is_choice.sum(dim=1).clamp(min=1)


def centring(chosen: Tensor, rejected: Tensor) -> Tensor:
    """(chosen + rejected)², (B,): pulls the mean score to 0, which the preference leaves free.

    Eisenstein et al. 2023, "Helping or Herding?", equation 2. Centred scores can be added to other rewards.
    """
    return (chosen + rejected).square()


def _same_shape(chosen: Tensor, rejected: Tensor, extra: Tensor | None, tie: Tensor | None) -> None:
    others = [tensor for tensor in (rejected, extra, tie) if tensor is not None]
    if any(tensor.shape != chosen.shape for tensor in others):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (chosen, *others))
        raise ValueError(
            f"scores of chosen and rejected, and margins, labels or ties, need one shape (B,): found {shapes}"
        )
