"""Several completions behind one copy of their prompt, so that pictures and prompt are computed once.

The completions of a prompt become one sequence ``prompt first second …``. The attention mask hides them from
one another, and the positions of each go on from the prompt: every token sees what it would see in a sequence
of its own. With hundreds of image tokens and short answers a pair costs half, a group of eight an eighth.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.models.encoding import EncodedPrompt, VlmBatch, collate
from toolkit.models.loading import LoadedVlm
from toolkit.models.structure import inner_model

__all__ = ["can_pack", "pack_completions"]

_PLAIN_CAUSAL = ("llava", "llava_next", "llava_onevision", "idefics3", "smolvlm")
_DENSE_ATTENTION = ("sdpa", "eager")
_PADDING = -1


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


def pack_completions(
    vlm: LoadedVlm, prompts: Sequence[EncodedPrompt], completions: Sequence[Sequence[Tensor]]
) -> tuple[VlmBatch, Tensor]:
    """``B`` prompts with their completions as ``B`` sequences, padded on the right.

    Args:
        vlm: a model for which ``can_pack`` holds.
        prompts: B of them.
        completions: for each prompt at least one completion: token ids (T,), end token included.

    Returns:
        The batch, with a float attention mask (B, 1, L, L), and the positions (B, K) of the last token of
        every completion, where K is the largest number of them; prompts with fewer repeat their last one.
    """
    batch = collate(vlm, prompts, [torch.cat(list(texts)) for texts in completions], padding_side="right")
    length, most = batch.completion_mask.shape[1], max(len(texts) for texts in completions)
    segments = torch.full((len(prompts), length), _PADDING)
    positions = torch.arange(length).repeat(len(prompts), 1)
    ends = torch.empty(len(prompts), most, dtype=torch.long)
    for row, (prompt, texts) in enumerate(zip(prompts, completions, strict=True)):
        start = stop = len(prompt.input_ids)
        segments[row, :start] = 0
        for number, text in enumerate(texts):
            first, stop = stop, stop + len(text)
            segments[row, first:stop] = number + 1
            positions[row, first:stop] -= first - start
            ends[row, number:] = stop - 1
    device = batch.completion_mask.device
    inputs = dict(batch.inputs)
    inputs["position_ids"] = positions.to(device)
    inputs["attention_mask"] = _mask(segments.to(device), inner_model(vlm.model).dtype)
    return dataclasses.replace(batch, inputs=inputs), ends.to(device)


def _mask(segments: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, L, L): 0 where a query may look, the lowest number elsewhere. Padding looks at itself alone.

    Args:
        segments: (B, L): 0 in the prompt, k in its k-th completion, ``_PADDING`` behind them.
        dtype: of the result.
    """
    query, key = segments.unsqueeze(2), segments.unsqueeze(1)
    place = torch.arange(segments.shape[1], device=segments.device)
    causal = place.unsqueeze(1) >= place.unsqueeze(0)
    itself = place.unsqueeze(1) == place.unsqueeze(0)
    seen = (causal & (query != _PADDING) & ((key == 0) | (key == query))) | itself
    lowest = torch.finfo(dtype).min
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, lowest).unsqueeze(1)
