"""Qwen-VL: an image-only processor, and a tiny model with patches of all images in one matrix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import (
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from toolkit.config.schema import TinyArchitecture
from toolkit.models.families.templates import turn_template
from toolkit.models.families.tiny_tokenizer import train_tokenizer

__all__ = ["ImageOnlyQwenProcessor", "build_tiny_qwen2_5_vl"]

_EOS = "<|im_end|>"
_TOKENS = ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
_MERGE = 2  # patches on each side that become one feature
_TEMPLATE = turn_template(
    image="<|vision_start|><|image_pad|><|vision_end|>",
    opening="<|im_start|>",
    roles={"system": "system", "user": "user", "assistant": "assistant"},
    gap="\\n",
    closing=_EOS + "\\n",
)


class ImageOnlyQwenProcessor(ProcessorMixin):
    """Qwen2-VL's processor without its video part, which cannot be built where torchvision is missing.

    It writes ``<|image_pad|>`` once for each merged patch and returns ``mm_token_type_ids``, as the full one
    does.
    """

    return_mm_token_type_ids = True

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None, **kwargs: Any
    ) -> None:
        del kwargs  # settings of the video part, when the files were written by the full processor
        self.image_token = getattr(tokenizer, "image_token", "<|image_pad|>")
        self.video_token = getattr(tokenizer, "video_token", "<|video_pad|>")
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """The placeholder, once for each feature of the image (patches after merging)."""
        del kwargs
        cells = int(image_inputs["image_grid_thw"][image_idx].prod())
        return self.image_token * (cells // self.image_processor.merge_size**2)

    @property
    def model_input_names(self) -> list[str]:
        """Names of the model's inputs."""
        return [*super().model_input_names, "mm_token_type_ids"]


def build_tiny_qwen2_5_vl(
    architecture: TinyArchitecture, *, texts: Iterable[str], seed: int
) -> tuple[Qwen2_5_VLForConditionalGeneration, ImageOnlyQwenProcessor]:
    """A random Qwen2.5-VL model in float32 with an image-only processor; images keep their aspect ratio.

    Args:
        architecture: sizes; ``image_size ** 2`` is the largest number of pixels of an image.
        texts: training texts of the tokenizer.
        seed: seed of the weights; torch's global random state is left as it was.
    """
    tokenizer = train_tokenizer(
        texts, vocabulary=architecture.vocabulary, special_tokens=_TOKENS, chat_template=_TEMPLATE, eos=_EOS
    )
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in _TOKENS}
    ends = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = Qwen2_5_VLConfig(
        text_config=_text_config(architecture, len(tokenizer)) | ends,
        vision_config=_vision_config(architecture),
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    cell = architecture.patch_size * _MERGE
    images = Qwen2VLImageProcessorPil(
        patch_size=architecture.patch_size,
        merge_size=_MERGE,
        size={"shortest_edge": cell * cell, "longest_edge": architecture.image_size**2},
    )
    return model.eval(), ImageOnlyQwenProcessor(images, tokenizer, chat_template=_TEMPLATE)


def _text_config(architecture: TinyArchitecture, vocabulary: int) -> dict[str, Any]:
    half_width = architecture.text_hidden // architecture.text_heads // 2
    time = half_width // 4
    height = (half_width - time) // 2
    sections = [time, height, half_width - time - height]
    return {
        "vocab_size": vocabulary,
        "hidden_size": architecture.text_hidden,
        "num_hidden_layers": architecture.text_layers,
        "num_attention_heads": architecture.text_heads,
        "num_key_value_heads": architecture.text_heads,
        "intermediate_size": architecture.text_mlp,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections},
    }


def _vision_config(architecture: TinyArchitecture) -> dict[str, Any]:
    return {
        "depth": architecture.vision_layers,
        "hidden_size": architecture.vision_hidden,
        "num_heads": architecture.vision_heads,
        "intermediate_size": architecture.vision_mlp,
        "patch_size": architecture.patch_size,
        "spatial_merge_size": _MERGE,
        "window_size": architecture.patch_size * _MERGE * 2,
        "out_hidden_size": architecture.text_hidden,
        "fullatt_block_indexes": [architecture.vision_layers - 1],
    }
