"""Image features of a frozen vision tower, computed once and reused by every forward.

They go in through transformers' public ``mm_encoder_outputs``; results are equal to the last bit (measured
for LLaVA, Idefics3 and Qwen-VL). Never through ``inputs_embeds``, which loses positions and deepstack
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from toolkit.errors import RunFailed
from toolkit.models.encoding import EncodedPrompt
from toolkit.models.families.features import ImageFeatures
from toolkit.models.loading import LoadedVlm
from toolkit.models.structure import trunk

__all__ = ["vision_features", "with_vision_features"]


def with_vision_features(
    vlm: LoadedVlm, prompts: Sequence[EncodedPrompt], *, batch_size: int = 64
) -> list[EncodedPrompt]:
    """The prompts with their image features, used instead of pixels; no gradient reaches the tower.

    Prompts that have features keep them, and those without images stay as they are. Prompts with the very same image
    tensors get the same features.
    """
    missing: dict[tuple[int, ...], list[int]] = {}
    for i, prompt in enumerate(prompts):
        if prompt.image_inputs and prompt.features is None:
            missing.setdefault(tuple(map(id, prompt.image_inputs.values())), []).append(i)
    result, groups = list(prompts), list(missing.values())
    for start in range(0, len(groups), batch_size):
        chosen = groups[start : start + batch_size]
        found = vision_features(vlm, [prompts[group[0]] for group in chosen])
        for group, features in zip(chosen, found, strict=True):
            for i in group:
                result[i] = replace(prompts[i], features=features)
    return result


def vision_features(vlm: LoadedVlm, prompts: Sequence[EncodedPrompt]) -> list[tuple[ImageFeatures, ...]]:
    """Features of each prompt's images, from one forward of the tower over all of them.

    Raises:
        RunFailed: the model gives another number of features than there are images.
    """
    images = vlm.family.collate_images([prompt.image_inputs for prompt in prompts])
    if not images:
        return [()] * len(prompts)
    with torch.no_grad():
        output = trunk(vlm.model).get_image_features(
            **{key: value.to(vlm.device) for key, value in images.items()}, return_dict=True
        )
    pooled = list(output.pooler_output)
    levels = getattr(output, "deepstack_features", None) or []
    counts = [vlm.family.feature_chunks(prompt.image_inputs) for prompt in prompts]
    if sum(counts) != len(pooled):
        raise RunFailed(
            f"{len(pooled)} image features for {sum(counts)} images of model type {vlm.family.name!r}"
        )
    flat = [ImageFeatures(chunk, tuple(level[i] for level in levels)) for i, chunk in enumerate(pooled)]
    ends = torch.tensor(counts).cumsum(0).tolist()
    return [tuple(flat[end - count : end]) for end, count in zip(ends, counts, strict=True)]
