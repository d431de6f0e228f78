"""The families whose particulars are known: LLaVA, Idefics3/SmolVLM and Qwen-VL."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.models.families.family import Family, pad_and_concatenate, text_positions

__all__ = ["Idefics3Family", "LlavaFamily", "PaddedFamily", "QwenVlFamily"]


@dataclass(frozen=True)
class LlavaFamily(Family):
    """One tensor an image, all of one size: ``pixel_values`` is (images, channels, height, width)."""

    own_positions: bool = False

    def feature_counts(self, images: Mapping[str, Tensor]) -> list[int] | None:
        """Patches of each image, with the class token where the tower has one and LLaVA keeps it."""
        pixels = images.get("pixel_values")
        if pixels is None:
            return []
        vision = self.config.vision_config
        class_token = 1 if vision.model_type.startswith("clip") else 0
        dropped = 1 if self.config.vision_feature_select_strategy == "default" else 0
        patches = (pixels.shape[-2] // vision.patch_size) * (pixels.shape[-1] // vision.patch_size)
        return [patches + class_token - dropped] * pixels.shape[0]


@dataclass(frozen=True)
class PaddedFamily(Family):
    """An image is a varying number of tiles (LLaVA-NeXT); the model drops padding tiles."""

    own_positions: bool = False

    def _join(self, key: str, tensors: Sequence[Tensor]) -> Tensor:
        return pad_and_concatenate(tensors)


@dataclass(frozen=True)
class Idefics3Family(PaddedFamily):
    """Tiles with a leading sample dimension: ``pixel_values`` is (1, tiles, channels, height, width)."""

    def feature_counts(self, images: Mapping[str, Tensor]) -> list[int] | None:
        """Features of each tile: patches after pixel shuffle."""
        pixels = images.get("pixel_values")
        if pixels is None:
            return []
        vision, scale = self.config.vision_config, self.config.scale_factor
        patches = (pixels.shape[-2] // vision.patch_size) * (pixels.shape[-1] // vision.patch_size)
        return [patches // scale**2] * pixels.shape[1]

    def collate_images(self, samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """A row a sample; a sample without images becomes tiles of zeros, which the model skips."""
        example = next((sample for sample in samples if sample), None)
        if example is None:
            return {}
        empty = {key: torch.zeros_like(value[:, :1]) for key, value in example.items()}
        return super().collate_images([sample or empty for sample in samples])

    def limit_pixels(self, processor: Any, max_pixels: int) -> None:
        """The longest edge becomes at most the square root of ``max_pixels``; tiles keep their size."""
        images = processor.image_processor
        images.size = {"longest_edge": min(images.size["longest_edge"], math.isqrt(max_pixels))}


@dataclass(frozen=True)
class QwenVlFamily(Family):
    """Patches of all images in one matrix (patches, values), and ``image_grid_thw`` (images, 3)."""

    def feature_counts(self, images: Mapping[str, Tensor]) -> list[int] | None:
        """Patches of each image after merging."""
        grid = images.get("image_grid_thw")
        if grid is None:
            return []
        merge = self.config.vision_config.spatial_merge_size
        return [int(cells) // merge**2 for cells in grid.prod(-1)]

    def feature_chunks(self, images: Mapping[str, Tensor]) -> int:
        """One an image."""
        return int(images["image_grid_thw"].shape[0]) if images else 0

    def generation_positions(self, trunk: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor | None:
        """(4, B, L): the place in the text, which masks are made of, and time, height, width in the picture."""
        text = text_positions(inputs["attention_mask"])[None]
        if "image_grid_thw" not in inputs:
            return text.expand(4, -1, -1)
        if "mm_token_type_ids" not in inputs:
            return None
        names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
        picture, _ = trunk.get_rope_index(**{name: inputs[name] for name in names})  # type: ignore[operator]
        return torch.cat([text, picture.to(text)])

    def limit_pixels(self, processor: Any, max_pixels: int) -> None:
        """Qwen's own setting: the area an image is resized to, in multiples of its patches."""
        images = processor.image_processor
        images.size = {
            "shortest_edge": min(images.size["shortest_edge"], max_pixels),
            "longest_edge": max_pixels,
        }
