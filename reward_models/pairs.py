"""Batches of preferences: pairs or ranked lists of completions to the same prompt and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reward_models.objective import PairLabels
from reward_models.prompts import PromptEncoder
from toolkit.models.encoding import VlmBatch, collate
from toolkit.models.packing import can_pack, pack_completions
from toolkit.records import PreferenceRow, RankedRow

__all__ = ["PairBatch", "PairCollator", "RankedBatch", "RankedCollator", "score_lists", "score_pairs"]


@dataclass(frozen=True)
class PairBatch:
    """``B`` pairs: 2B sequences, or B sequences that hold both completions behind one prompt.

    Attributes:
        sequences: without ``ends``, row i is the chosen and row B + i the rejected completion of pair i.
        labels: what raters said.
        ends: (B, 2) positions of the last token of chosen and rejected, see ``toolkit.models.packing``.
    """

    sequences: VlmBatch
    labels: PairLabels
    ends: Tensor | None = None


@dataclass(frozen=True)
class RankedBatch:
    """``B`` lists of at most ``K`` completions: a sequence each, or B sequences that hold a list each.

    Attributes:
        sequences: without ``ends``, the completions list by list.
        ranks: (B, K), 0 best; −1 where a list has no further completion.
        weight: (B,).
        ends: (B, K) positions of the completions' last tokens, see ``toolkit.models.packing``.
    """

    sequences: VlmBatch
    ranks: Tensor
    weight: Tensor
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
        labels = PairLabels.of(rows, vlm.device)
        if self.pack:
            batch, ends = pack_completions(vlm, prompts, list(zip(chosen, rejected, strict=True)))
            return {"pairs": PairBatch(batch, labels, ends)}
        batch = collate(vlm, [*prompts, *prompts], [*chosen, *rejected], padding_side="right")
        return {"pairs": PairBatch(batch, labels)}


class RankedCollator:
    """Turns ranked rows into a ``RankedBatch`` on the model's device; arguments as of ``PairCollator``."""

    def __init__(self, encoder: PromptEncoder, *, pack: bool = True) -> None:
        self.encoder = encoder
        self.pack = pack and can_pack(encoder.vlm)

    def __call__(self, rows: Sequence[RankedRow]) -> dict[str, RankedBatch]:
        """``{"lists": RankedBatch}``."""
        prompts = self.encoder.encode([row.prompt for row in rows], [row.images for row in rows])
        texts = [self.encoder.completions(row.completions) for row in rows]
        vlm = self.encoder.vlm
        ranks = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row.ranks) for row in rows], batch_first=True, padding_value=-1
        ).to(vlm.device)
        weight = torch.tensor([row.weight for row in rows], device=vlm.device)
        if self.pack:
            batch, ends = pack_completions(vlm, prompts, texts)
            return {"lists": RankedBatch(batch, ranks, weight, ends)}
        repeated = [prompt for prompt, several in zip(prompts, texts, strict=True) for _ in several]
        flat = [text for several in texts for text in several]
        batch = collate(vlm, repeated, flat, padding_side="right")
        return {"lists": RankedBatch(batch, ranks, weight)}


def score_pairs(model: nn.Module, batch: PairBatch) -> tuple[Tensor, Tensor]:
    """Scores (B,) of the chosen and (B,) of the rejected completions, from one forward of ``model``."""
    if batch.ends is None:
        chosen, rejected = model(batch.sequences).chunk(2)
    else:
        chosen, rejected = model(batch.sequences, batch.ends).unbind(1)
    return chosen, rejected


def score_lists(model: nn.Module, batch: RankedBatch) -> Tensor:
    """Scores (B, K) of the completions, from one forward of ``model``; 0 where there is none."""
    real = batch.ranks >= 0
    if batch.ends is not None:
        return model(batch.sequences, batch.ends) * real
    flat = model(batch.sequences)
    return flat.new_zeros(real.shape).masked_scatter(real, flat)
