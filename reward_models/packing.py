"""Both completions of a pair behind one copy of the prompt, so that pictures and prompt are computed once.

A pair becomes one sequence ``prompt chosen rejected``. The attention mask hides the chosen completion from
the
rejected one, and the positions of both go on from the prompt: every token sees what it would see in a
sequence of its own. With hundreds of image tokens and short answers this halves time and memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.models.encoding import EncodedPrompt, VlmBatch, collate
from toolkit.models.loading import LoadedVlm
from toolkit.models.structure import inner_model

__all__ = ["can_pack", "pack_pairs"]

_PLAIN_CAUSAL = ("llava", "llava_next", "llava_onevision", "idefics3", "smolvlm")
_DENSE_ATTENTION = ("sdpa", "eager")


def can_pack(vlm: LoadedVlm) -> bool:
    """Whether the model takes a dense mask and positions from outside, and attends causally everywhere.

    Families with positions of their own (Qwen-VL) or two-way attention between image tokens do not; nor do
    language models with a sliding window.
    """
    config = inner_model(vlm.model).config
    text = config.get_text_config()
    return (
        vlm.family.name in _PLAIN_CAUSAL
        and not vlm.family.own_positions
        and text._attn_implementation in _DENSE_ATTENTION
        and getattr(text, "sliding_window", None) is None
    )


def pack_pairs(
    vlm: LoadedVlm, prompts: Sequence[EncodedPrompt], chosen: Sequence[Tensor], rejected: Sequence[Tensor]
) -> tuple[VlmBatch, Tensor]:
    """``B`` pairs as ``B`` sequences, padded on the right.

    Args:
        vlm: a model for which ``can_pack`` holds.
        prompts: one a pair.
        chosen: token ids (T,) of each chosen completion, end token included.
        rejected: likewise.

    Returns:
        The batch, with a float attention mask (B, 1, L, L), and the positions (B, 2) of the last token of the
        chosen and of the rejected completion.
    """
    tails = [torch.cat([good, bad]) for good, bad in zip(chosen, rejected, strict=True)]
    batch = collate(vlm, prompts, tails, padding_side="right")
    device = batch.completion_mask.device
    start = torch.tensor([len(prompt.input_ids) for prompt in prompts], device=device).unsqueeze(1)
    middle = start + torch.tensor([len(good) for good in chosen], device=device).unsqueeze(1)
    stop = middle + torch.tensor([len(bad) for bad in rejected], device=device).unsqueeze(1)
    place = torch.arange(batch.completion_mask.shape[1], device=device).unsqueeze(0)
    in_rejected = (place >= middle) & (place < stop)
    inputs = dict(batch.inputs)
    inputs["position_ids"] = torch.where(in_rejected, place - middle + start, place)
    inputs["attention_mask"] = _mask(place, start, middle, stop, inner_model(vlm.model).dtype)
    return dataclasses.replace(batch, inputs=inputs), torch.cat([middle - 1, stop - 1], dim=1)


def _mask(place: Tensor, start: Tensor, middle: Tensor, stop: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, L, L): 0 where a query may look, the lowest number elsewhere. Padding looks at itself alone."""
    in_chosen = (place >= start) & (place < middle)
    in_rejected = (place >= middle) & (place < stop)
    causal = place.unsqueeze(2) >= place.unsqueeze(1)
    hidden = in_rejected.unsqueeze(2) & in_chosen.unsqueeze(1)
    real = (place < stop).unsqueeze(1)
    itself = place.unsqueeze(2) == place.unsqueeze(1)
    seen = (causal & ~hidden & real) | itself
    lowest = torch.finfo(dtype).min
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, lowest).unsqueeze(1)
