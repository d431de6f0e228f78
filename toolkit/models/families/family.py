"""What a family of vision-language models does in its own way, with a generic behaviour for unknown ones.

A sample's image tensors are kept as its processor made them, alone. The family says how many image tokens
they must correspond to, how those of several samples are joined, and which token ids may never be sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig

from toolkit.errors import RecipeError, RunFailed

__all__ = ["Family", "pad_and_concatenate", "text_positions"]

_PLACEHOLDER_NAMES = (
    "image_token_id",
    "image_token_index",
    "video_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
    "vision_token_id",
    "fake_image_token_id",
    "global_image_token_id",
    "boi_token_id",
    "eoi_token_id",
    "row_col_ids",
)


@dataclass(frozen=True)
class Family:
    """Generic family: image tensors are joined along their first dimension and must otherwise have one shape.

    Attributes:
        config: the model's configuration.
        own_positions: the model works out its positions itself (M-RoPE); none may be passed to it.
    """

    config: PretrainedConfig
    own_positions: bool = True

    @property
    def name(self) -> str:
        """transformers' model type, such as ``llava``."""
        return str(self.config.model_type)

    @property
    def image_token_id(self) -> int:
        """The id that stands for one image feature in ``input_ids``.

        Raises:
            RunFailed: the configuration names no image token.
        """
        for name in ("image_token_id", "image_token_index"):
            value = getattr(self.config, name, None)
            if value is not None:
                return int(value)
        raise RunFailed(
            f"model type {self.name!r}: its configuration names no image_token_id",
            remedy="use a LLaVA, Idefics3/SmolVLM or Qwen-VL model",
        )

    def placeholder_ids(self, processor: Any) -> list[int]:
        """Sorted ids of image and video placeholders: a sampled one would make the next forward fail."""
        found: set[int] = set()
        for source in (self.config, processor):
            for name in _PLACEHOLDER_NAMES:
                value = getattr(source, name, None)
                found.update(value if isinstance(value, list | tuple) else [value])  # type: ignore[list-item]
        unknown = processor.tokenizer.unk_token_id
        size = len(processor.tokenizer)
        return sorted(i for i in found if i is not None and i != unknown and 0 <= i < size)

    def feature_counts(self, images: Mapping[str, Tensor]) -> list[int] | None:
        """Image features per image of one sample, or None where the family does not say beforehand."""
        del images
        return None

    def feature_chunks(self, images: Mapping[str, Tensor]) -> int:
        """Entries of ``get_image_features(...).pooler_output`` that belong to this sample: one an image."""
        return 0 if not images else int(next(iter(images.values())).shape[0])

    def collate_images(self, samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Join the image tensors of several samples, in their order; samples without images are skipped.

        Raises:
            RunFailed: tensors whose shapes do not fit together.
        """
        present = [sample for sample in samples if sample]
        keys = list(dict.fromkeys(key for sample in present for key in sample))
        return {key: self._join(key, [sample[key] for sample in present]) for key in keys}

    def generation_positions(self, trunk: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor | None:
        """``position_ids`` (…, B, L) as generate gives them to the model, or None where only the model knows them.

        Args:
            trunk: the model without its output head.
            inputs: a batch, ``attention_mask`` (B, L) among it.
        """
        del trunk
        return None if self.own_positions else text_positions(inputs["attention_mask"])

    def _join(self, key: str, tensors: Sequence[Tensor]) -> Tensor:
        if len({tensor.shape[1:] for tensor in tensors}) > 1:
            shapes = sorted({tuple(tensor.shape) for tensor in tensors})
            raise RunFailed(
                f"model type {self.name!r}: {key} of shapes {shapes} cannot be put in one batch",
                remedy="use a batch size of one, or images of one size",
            )
        return torch.cat(list(tensors))

    def limit_pixels(self, processor: Any, max_pixels: int) -> None:
        """Make ``processor`` shrink every image to at most ``max_pixels`` pixels.

        Raises:
            RecipeError: the family has an input size of its own that is larger.
        """
        size = getattr(processor.image_processor, "size", None) or {}
        height, width = size.get("height"), size.get("width")
        if height is None or width is None or height * width > max_pixels:
            fixed = f"{height} x {width} pixels" if height and width else "a size of its own"
            raise RecipeError(
                "model",
                f"max_pixels: found {max_pixels}, but {self.name!r} resizes every image to {fixed}",
                remedy="remove model.max_pixels or choose a model with a variable image size",
            )


def pad_and_concatenate(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate along dimension 0 after padding every other dimension with zeros up to the largest."""
    largest = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        missing = [(0, full - have) for full, have in zip(largest, tensor.shape[1:], strict=True)]
        padded.append(functional.pad(tensor, [n for pair in reversed(missing) for n in pair]))
    return torch.cat(padded)


def text_positions(attention_mask: Tensor) -> Tensor:
    """Positions (B, L) that count the tokens of each row from 0; 0 on padding."""
    return (attention_mask.long().cumsum(-1) - 1).masked_fill(attention_mask == 0, 0)
