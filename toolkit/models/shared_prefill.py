"""Prompts that a decoding batch holds several times pass through the language model once.

The key-value cache of the distinct prompts, all tokens but the last, is spread over the rows and handed to generate,
which goes on from there. Where that would not be certain to give what a whole prompt gives (a cache with a sliding
window or a state, positions that only the model knows) the batch is decoded in the plain way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from toolkit.models.encoding import TOKEN_KEYS, EncodedPrompt, VlmBatch, collate
from toolkit.models.loading import LoadedVlm
from toolkit.models.shrinking import keeps_all
from toolkit.models.structure import inner_model, trunk

__all__ = ["generation_inputs"]


def generation_inputs(
    vlm: LoadedVlm, prompts: Sequence[EncodedPrompt], *, share: bool
) -> tuple[dict[str, Any], Tensor | None]:
    """Arguments of one call of generate, a row for each of ``prompts``, padded on the left, and the rows' positions.

    With ``share`` equal prompts (the same tokens and the very same image tensors) are prefilled here, once, under the
    active role and in the model's current mode: what comes out then holds ``past_key_values`` and no images. The
    positions ``(…, B, L)`` are None where only the model knows them.
    """
    if share:
        distinct, rows = _distinct(prompts)
        batch = collate(vlm, distinct, padding_side="left")
        positions = vlm.family.generation_positions(trunk(vlm.model), batch.inputs)
        if positions is not None and _may_share(vlm, batch):
            cache = _prefilled(vlm, batch, positions)
            index = torch.tensor(rows, device=vlm.device)
            cache.batch_select_indices(index)
            positions = positions.index_select(-2, index)
            kept = {key: batch.inputs[key][index] for key in ("input_ids", "attention_mask")}
            return {**kept, "position_ids": positions, "past_key_values": cache}, positions
    batch = collate(vlm, prompts, padding_side="left")
    return batch.model_inputs(), vlm.family.generation_positions(trunk(vlm.model), batch.inputs)


def _distinct(prompts: Sequence[EncodedPrompt]) -> tuple[list[EncodedPrompt], list[int]]:
    """The prompts without repetitions, in order of appearance, and which of them each row is."""
    places: dict[tuple[Any, ...], int] = {}
    distinct: list[EncodedPrompt] = []
    rows = []
    for prompt in prompts:
        seen = [*prompt.image_inputs.values(), *(feature.pooled for feature in prompt.features or ())]
        # Comparing pictures value by value would cost more than it saves; tensors live as long as their prompts.
        key = (tuple(prompt.input_ids.tolist()), *map(id, seen))
        if key not in places:
            places[key] = len(distinct)
            distinct.append(prompt)
        rows.append(places[key])
    return distinct, rows


def _may_share(vlm: LoadedVlm, batch: VlmBatch) -> bool:
    """Every layer keeps all keys and values, and the last token is text: images do not go in twice."""
    ids = batch.inputs["input_ids"]
    ends_in_text = ids.shape[1] > 1 and not bool((ids[:, -1] == vlm.family.image_token_id).any())
    return ends_in_text and keeps_all(inner_model(vlm.model))


def _prefilled(vlm: LoadedVlm, batch: VlmBatch, positions: Tensor) -> DynamicCache:
    """The cache of all tokens but the last, which generate needs for the first logits."""
    cache = DynamicCache(config=inner_model(vlm.model).config.get_text_config(decoder=True))
    inputs = batch.model_inputs()
    inputs.update({key: inputs[key][:, :-1] for key in TOKEN_KEYS if key in inputs})
    trunk(vlm.model)(**inputs, position_ids=positions[..., :-1], past_key_values=cache, use_cache=True)
    return cache
