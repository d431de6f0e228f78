"""Image features computed once and passed to the model instead of pixels (``mm_encoder_outputs``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

__all__ = ["ImageFeatures", "as_encoder_output"]


@dataclass(frozen=True)
class ImageFeatures:
    """Features of one image (for Idefics3: of one sample's tiles).

    Attributes:
        pooled: (features, hidden), after the projector.
        deepstack: Qwen3-VL's features for the first language layers, each (features, hidden).
    """

    pooled: Tensor
    deepstack: tuple[Tensor, ...] = ()


def as_encoder_output(features: Sequence[ImageFeatures]) -> BaseModelOutputWithPooling:
    """A new output object of ``get_image_features`` that holds these features in this order."""
    output = BaseModelOutputWithPooling(pooler_output=[feature.pooled for feature in features])
    depth = len(features[0].deepstack) if features else 0
    if depth:
        output["deepstack_features"] = [
            [feature.deepstack[level] for feature in features] for level in range(depth)
        ]
    return output
