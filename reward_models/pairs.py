"""Batches of preference pairs: the chosen completions stacked on the rejected ones, over the same pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reward_models.prompts import PromptEncoder
from toolkit.models.encoding import VlmBatch, collate
from toolkit.records import PreferenceRow

__all__ = ["PairBatch", "PairCollator", "score_pairs"]


@dataclass(frozen=True)
class PairBatch:
    """``B`` pairs as one batch of 2B sequences: row i is the chosen, row B + i the rejected one of pair i.

    Attributes:
        sequences: both completions behind the same prompt and pictures.
        margin: (B,) float32; 0 where a pair names none.
    """

    sequences: VlmBatch
    margin: Tensor


class PairCollator:
    """Turns rows into a ``PairBatch`` on the model's device.

    Args:
        encoder: encodes prompts; each picture once.
    """

    def __init__(self, encoder: PromptEncoder) -> None:
        self.encoder = encoder

    def __call__(self, rows: Sequence[PreferenceRow]) -> dict[str, PairBatch]:
        """``{"pairs": PairBatch}``: the form in which transformers' ``Trainer`` hands batches on."""
        prompts = self.encoder.encode([row.prompt for row in rows], [row.images for row in rows])
        texts = [*(row.chosen for row in rows), *(row.rejected for row in rows)]
        completions = self.encoder.completions(texts)
        vlm = self.encoder.vlm
        batch = collate(vlm, [*prompts, *prompts], completions, padding_side="right")
        margin = torch.tensor([row.margin or 0.0 for row in rows], dtype=torch.float32, device=vlm.device)
        return {"pairs": PairBatch(batch, margin)}


def score_pairs(model: nn.Module, batch: PairBatch) -> tuple[Tensor, Tensor]:
    """Scores (B,) of the chosen and (B,) of the rejected completions, from one forward of ``model``."""
    chosen, rejected = model(batch.sequences).chunk(2)
    return chosen, rejected
