"""The loss of a batch as the recipe names it: ``reward_models.losses`` on scores and what raters said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reward_models.losses import bradley_terry, centring, graded, plackett_luce, rao_kupper
from toolkit.config.schema import RewardLossSpec
from toolkit.records import PreferenceRow

__all__ = ["PairLabels", "list_loss", "pair_loss"]


@dataclass(frozen=True)
class PairLabels:
    """What raters said about ``B`` pairs.

    Attributes:
        margin: (B,); 0 where a pair names none.
        tie: (B,) bool.
        agreement: (B,), share of raters for the chosen completion: where nobody counted, 1, of ties 0.5.
        weight: (B,), > 0.
    """

    margin: Tensor
    tie: Tensor
    agreement: Tensor
    weight: Tensor

    @classmethod
    def of(cls, rows: Sequence[PreferenceRow], device: torch.device | str = "cpu") -> PairLabels:
        """The labels of ``rows``, in float32 on ``device``."""
        agreements = [(0.5 if r.tie else 1.0) if r.agreement is None else r.agreement for r in rows]
        return cls(
            margin=torch.tensor([row.margin or 0.0 for row in rows], device=device),
            tie=torch.tensor([row.tie for row in rows], dtype=torch.bool, device=device),
            agreement=torch.tensor(agreements, device=device),
            weight=torch.tensor([row.weight for row in rows], device=device),
        )


def pair_loss(chosen: Tensor, rejected: Tensor, labels: PairLabels, spec: RewardLossSpec) -> Tensor:
    """Mean over the pairs of weight × (loss of ``spec.kind`` + ``spec.centring`` × centring); a scalar tensor.

    ``plackett_luce`` on pairs is Bradley and Terry's loss.
    """
    if spec.kind == "graded":
        loss = graded(chosen, rejected, labels.agreement)
    elif spec.kind == "rao_kupper":
        loss = rao_kupper(chosen, rejected, tie=labels.tie, threshold=spec.tie_threshold)
    else:
        loss = bradley_terry(
            chosen,
            rejected,
            margin=labels.margin,
            label_smoothing=spec.label_smoothing,
            tie=labels.tie,
        )
    return (labels.weight * (loss + spec.centring * centring(chosen, rejected))).mean()


def list_loss(scores: Tensor, ranks: Tensor, weight: Tensor, spec: RewardLossSpec) -> Tensor:
    """Mean over the lists of weight × (Plackett–Luce loss + ``spec.centring`` × (2 × mean score)²).

    For lists of two this is ``pair_loss``.

    Args:
        scores: (B, K).
        ranks: (B, K); −1 marks places without a completion.
        weight: (B,).
        spec: the loss.
    """
    real = ranks >= 0
    mean = (scores * real).sum(dim=1) / real.sum(dim=1)
    return (weight * (plackett_luce(scores, ranks) + spec.centring * (2.0 * mean).square())).mean()
