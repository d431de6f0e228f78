"""Several completions behind one copy of their prompt, so that pictures and prompt are computed once.

The completions of a prompt become one sequence ``prompt first second …``. The attention mask hides them from
one another, and the positions of each go on from the prompt: every token sees what it would see in a sequence
of its own. With hundreds of image tokens and short answers a pair costs half, a group of eight an eighth, forward and
backward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.models.encoding import CompletionPlaces, EncodedPrompt, VlmBatch, collate
from toolkit.models.families.family import text_positions
from toolkit.models.loading import LoadedVlm
from toolkit.models.structure import inner_model, trunk

__all__ = ["can_pack", "collate_sharing", "pack_completions", "prompt_runs"]

_CAUSAL = (
    "llava",
    "llava_next",
    "llava_onevision",
    "idefics3",
    "smolvlm",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
)
_DENSE_ATTENTION = ("sdpa", "eager")
_PADDING = -1
_LONGEST_RUN = 8
"""Completions behind one prompt at most: the attention mask grows with the square of their length."""


def can_pack(vlm: LoadedVlm) -> bool:
    """Whether the model takes a dense mask and positions from outside, and attends causally everywhere.

    Families with two-way attention between image tokens do not; nor do language models with a sliding window, nor
    attention kernels without dense masks.
    """
    text = inner_model(vlm.model).config.get_text_config()
    sliding = "sliding_attention" in (getattr(text, "layer_types", None) or ())
    if getattr(text, "use_sliding_window", True):
        sliding = sliding or getattr(text, "sliding_window", None) is not None
    return vlm.family.name in _CAUSAL and text._attn_implementation in _DENSE_ATTENTION and not sliding


def prompt_runs(prompts: Sequence[EncodedPrompt], *, longest: int = _LONGEST_RUN) -> list[list[int]]:
    """Row numbers in runs of neighbours that have the very same prompt object, ``longest`` rows a run at most."""
    runs: list[list[int]] = []
    for row, prompt in enumerate(prompts):
        if runs and prompts[runs[-1][0]] is prompt and len(runs[-1]) < longest:
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


def collate_sharing(
    vlm: LoadedVlm, prompts: Sequence[EncodedPrompt], completions: Sequence[Tensor]
) -> VlmBatch:
    """A batch of prompts with a completion each; neighbours with the very same prompt object share its sequence.

    Where the model does not allow it, or nothing is to be shared, every row is a sequence of its own. Scores come out
    in the order of the rows either way.
    """
    runs = prompt_runs(prompts)
    if len(runs) == len(prompts) or not can_pack(vlm):
        return collate(vlm, prompts, completions)
    texts = [[completions[row] for row in run] for run in runs]
    return pack_completions(vlm, [prompts[run[0]] for run in runs], texts)[0]


def pack_completions(
    vlm: LoadedVlm, prompts: Sequence[EncodedPrompt], completions: Sequence[Sequence[Tensor]]
) -> tuple[VlmBatch, Tensor]:
    """``B`` prompts with their completions as ``B`` sequences, padded on the right.

    Args:
        vlm: a model for which ``can_pack`` holds.
        prompts: B of them.
        completions: for each prompt at least one completion: token ids (T,), end token included.

    Returns:
        The batch, with a float attention mask (B, 1, L, L) and the ``places`` of all completions, those of the first
        prompt first; and the positions (B, K) of the last token of every completion, where K is the largest number of
        them; prompts with fewer repeat their last one.
    """
    batch = collate(vlm, prompts, [torch.cat(list(texts)) for texts in completions], padding_side="right")
    length, most = batch.completion_mask.shape[1], max(len(texts) for texts in completions)
    segments = torch.full((len(prompts), length), _PADDING)
    steps = torch.zeros(len(prompts), length, dtype=torch.long)  # of a completion, counted from 0
    ends = torch.empty(len(prompts), most, dtype=torch.long)
    starts: list[tuple[int, int, int, int]] = []
    for row, (prompt, texts) in enumerate(zip(prompts, completions, strict=True)):
        start = stop = len(prompt.input_ids)
        segments[row, :start] = 0
        for number, text in enumerate(texts):
            first, stop = stop, stop + len(text)
            segments[row, first:stop] = number + 1
            steps[row, first:stop] = torch.arange(len(text))
            starts.append((row, start - 1, first, len(text)))
            ends[row, number:] = stop - 1
    device = batch.completion_mask.device
    inputs = dict(batch.inputs)
    inputs["position_ids"] = _positions(vlm, prompts, segments.to(device), steps.to(device))
    inputs["attention_mask"] = _mask(segments.to(device), inner_model(vlm.model).dtype)
    places = _places(torch.tensor(starts, device=device))
    return dataclasses.replace(batch, inputs=inputs, places=places), ends.to(device)


def _positions(vlm: LoadedVlm, prompts: Sequence[EncodedPrompt], segments: Tensor, steps: Tensor) -> Tensor:
    """``position_ids`` (…, B, L): the prompts' own, and those of each completion going on behind its prompt.

    M-RoPE has four rows: the place in the text, then time, height and width, which all go on behind the largest of
    the three, as the text behind a picture does.
    """
    without_pixels = [
        dataclasses.replace(
            prompt,
            image_inputs={k: v for k, v in prompt.image_inputs.items() if not k.startswith("pixel_")},
            features=None,
        )
        for prompt in prompts
    ]
    inputs = collate(vlm, without_pixels, padding_side="right").inputs
    own = vlm.family.generation_positions(trunk(vlm.model), inputs)
    if own is None:
        own = text_positions(inputs["attention_mask"])
    own = own.masked_fill(inputs["attention_mask"] == 0, -1)
    following = own.amax(-1, keepdim=True) + 1
    if own.dim() == 3:
        following[1:] = following[1:].amax(0, keepdim=True)
    missing = segments.shape[-1] - own.shape[-1]
    padded = torch.nn.functional.pad(own.clamp(min=0), (0, missing))
    return torch.where(segments == 0, padded, torch.where(segments > 0, following + steps, 0))


def _places(starts: Tensor) -> CompletionPlaces:
    """Where completions stand; ``starts`` (N, 4): sequence, last place of the prompt, first place, length."""
    sequence, last, first, lengths = starts.unbind(1)
    steps = torch.arange(int(lengths.max()), device=starts.device)
    mask = steps < lengths.unsqueeze(1)
    at = torch.where(mask, first.unsqueeze(1) + steps, 0)
    before = torch.where(steps == 0, last.unsqueeze(1), at - 1).clamp(min=0)
    return CompletionPlaces(sequence, before, at, mask)


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
