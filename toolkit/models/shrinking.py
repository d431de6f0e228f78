"""Decoding in which rows that have ended leave the batch.

``generate`` goes on with every row until the last one ends. Completions of one batch differ much in length (an answer
has one token, a caption twelve), so that most rows of its forwards need none. Here it stops whenever half of its rows
have ended, and is called again with the others and their part of the key-value cache.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.cache_utils import DynamicLayer

__all__ = ["Sampler", "decode", "keeps_all"]

ENDED_SHARE = 0.5
FEWEST_ROWS = 8
"""Fewer rows than that cost about the same as one."""


class Sampler(Protocol):
    """A logits processor that leaves one token of every row possible, and can follow rows into a smaller batch."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """0 at the chosen token, minus infinity elsewhere ``(B, V)``."""
        ...

    def keep(self, rows: Tensor) -> None:
        """From now on the batch holds these of its rows."""
        ...


class _EnoughEnded(StoppingCriteria):
    """True for all rows at once when so many have ended that the batch is worth making smaller."""

    def __init__(self, end_ids: Tensor, rows: int) -> None:
        self._ends = end_ids
        self._ended = torch.zeros(rows, dtype=torch.bool, device=end_ids.device)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """``(B,)``, on the device: nothing waits for it."""
        self._ended |= torch.isin(input_ids[:, -1], self._ends)
        return (self._ended.float().mean() >= ENDED_SHARE).expand(len(input_ids))


def decode(
    model: PreTrainedModel,
    inputs: Mapping[str, Any],
    positions: Tensor | None,
    config: GenerationConfig,
    sampler: Sampler | None,
) -> Tensor:
    """New token ids ``(B, T)``, padded behind the end tokens.

    Args:
        model: with a head, on which ``generate`` is called.
        inputs: its arguments, ``input_ids`` and ``attention_mask`` ``(B, L)`` among them.
        positions: ``position_ids`` ``(…, B, L)`` of the prompts; None where only the model knows them: then nothing
            leaves the batch.
        config: for all tokens; not changed.
        sampler: None decodes greedily.
    """
    prompt_length, total = inputs["input_ids"].shape[1], int(config.max_new_tokens)
    device = inputs["input_ids"].device
    ends = torch.tensor(config.eos_token_id, device=device)
    rows = torch.arange(len(inputs["input_ids"]), device=device)
    new = torch.full((len(rows), total), int(config.pad_token_id), device=device)
    shrinks, current, done = positions is not None and keeps_all(model), dict(inputs), 0
    while True:
        stops = [_EnoughEnded(ends, len(rows))] if shrinks and len(rows) >= FEWEST_ROWS else []
        settings = copy.deepcopy(config)
        settings.max_new_tokens, settings.return_dict_in_generate = total - done, True
        output = model.generate(
            **current,
            generation_config=settings,
            logits_processor=LogitsProcessorList([] if sampler is None else [sampler]),
            stopping_criteria=StoppingCriteriaList(stops),
        )
        fresh = output.sequences[:, prompt_length + done :]
        new[rows, done : done + fresh.shape[1]] = fresh
        done += fresh.shape[1]
        left = (~torch.isin(fresh, ends).any(dim=1)).nonzero().squeeze(1)
        if positions is None or not stops or not len(left) or done >= total:
            return new[:, :done]
        current, positions = _continued(current, output, positions, left)
        rows = rows[left]
        if sampler is not None:
            sampler.keep(left)


def keeps_all(model: PreTrainedModel) -> bool:
    """Every layer of the model's cache keeps all keys and values: no sliding window, no state."""
    layers = DynamicCache(config=model.config.get_text_config(decoder=True)).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def _continued(
    inputs: Mapping[str, Any], output: Any, positions: Tensor, rows: Tensor
) -> tuple[dict[str, Any], Tensor]:
    """Arguments of the next call for ``rows`` of the last one, and their positions."""
    sequences, cache = output.sequences[rows], output.past_key_values
    added = sequences.shape[1] - inputs["input_ids"].shape[1]
    surplus = cache.get_seq_length() - (sequences.shape[1] - 1)
    if surplus > 0:  # generate may look for the end a step late, and has gone too far then
        cache.crop(-surplus)
    cache.batch_select_indices(rows)
    mask = inputs["attention_mask"][rows]
    positions = positions.index_select(-2, rows)
    steps = torch.arange(1, added + 1, device=positions.device)
    positions = torch.cat([positions, positions[..., -1:] + steps], dim=-1)
    following = {
        "input_ids": sequences,
        "attention_mask": torch.cat([mask, mask.new_ones(len(rows), added)], dim=1),
        "position_ids": positions,
        "past_key_values": cache,
    }
    return following, positions
