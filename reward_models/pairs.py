"""Batches of preference pairs: chosen and rejected completions to the same prompt and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reward_models.packing import can_pack, pack_completions
from reward_models.prompts import PromptEncoder
from toolkit.models.encoding import VlmBatch, collate
from toolkit.records import PreferenceRow

__all__ = ["PairBatch", "PairCollator", "score_pairs"]


@dataclass(frozen=True)
class PairBatch:
    """``B`` pairs: 2B sequences, or B sequences that hold both completions behind one prompt.

    Attributes:
        sequences: without ``ends``, row i is the chosen and row B + i the rejected completion of pair i.
        margin: (B,) float32; 0 where a pair names none.
        ends: (B, 2) positions of the last token of chosen and rejected, see ``reward_models.packing``.
    """

    sequences: VlmBatch
    margin: Tensor
    ends: Tensor | None = None


class PairCollator:
    """Turns rows into a ``PairBatch`` on the model's device.

    Args:
        encoder: encodes prompts; each picture once.
        pack: put both completions behind one prompt where the model allows it; the scores are the same.
    """

    def __init__(self, encoder: PromptEncoder, *, pack: bool = True) -> None:
        self.encoder = encoder
        self.pack = pack and can_pack(encoder.vlm)

    def __call__(self, rows: Sequence[PreferenceRow]) -> dict[str, PairBatch]:
        """``{"pairs": PairBatch}``: the form in which transformers' ``Trainer`` hands batches on."""
        prompts = self.encoder.encode([row.prompt for row in rows], [row.images for row in rows])
        chosen = self.encoder.completions([row.chosen for row in rows])
        rejected = self.encoder.completions([row.rejected for row in rows])
        vlm = self.encoder.vlm
        margin = torch.tensor([row.margin or 0.0 for row in rows], dtype=torch.float32, device=vlm.device)
        if self.pack:
            batch, ends = pack_completions(vlm, prompts, list(zip(chosen, rejected, strict=True)))
            return {"pairs": PairBatch(batch, margin, ends)}
        batch = collate(vlm, [*prompts, *prompts], [*chosen, *rejected], padding_side="right")
        return {"pairs": PairBatch(batch, margin)}


def score_pairs(model: nn.Module, batch: PairBatch) -> tuple[Tensor, Tensor]:
    """Scores (B,) of the chosen and (B,) of the rejected completions, from one forward of ``model``."""
    if batch.ends is None:
        chosen, rejected = model(batch.sequences).chunk(2)
    else:
        chosen, rejected = model(batch.sequences, batch.ends).unbind(1)
    return chosen, rejected
