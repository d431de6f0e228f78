"""Idefics3 (the architecture of SmolVLM too): images as one or more tiles, a few features a tile."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlamaConfig,
)

from toolkit.config.schema import TinyArchitecture
from toolkit.models.families.templates import turn_template
from toolkit.models.families.tiny_tokenizer import train_tokenizer

__all__ = ["build_tiny_idefics3"]

_EOS = "<end_of_utterance>"
_SHUFFLE = 2  # patches on each side that pixel shuffle makes one feature
_TILES = 6  # the processor knows tiles of up to 6 rows and columns
_TOKENS = [
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, _TILES + 1) for column in range(1, _TILES + 1)),
]
_TEMPLATE = turn_template(
    image="<image>",
    opening="",
    roles={"system": "System", "user": "User", "assistant": "Assistant"},
    gap=": ",
    closing=_EOS + "\\n",
)


def build_tiny_idefics3(
    architecture: TinyArchitecture, *, texts: Iterable[str], seed: int, tiles: bool = False
) -> tuple[Idefics3ForConditionalGeneration, Idefics3Processor]:
    """A random Idefics3 model in float32, with its processor.

    Args:
        architecture: sizes; a tile has ``(image_size / patch_size / 2) ** 2`` features.
        texts: training texts of the tokenizer.
        seed: seed of the weights; torch's global random state is left as it was.
        tiles: split large images into tiles, so that images of different shapes have different numbers of them.
    """
    tokenizer = train_tokenizer(
        texts, vocabulary=architecture.vocabulary, special_tokens=_TOKENS, chat_template=_TEMPLATE, eos=_EOS
    )
    config = _config(architecture, len(tokenizer), tokenizer.convert_tokens_to_ids("<image>"))
    for part in (config, config.text_config):
        part.pad_token_id, part.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Idefics3ForConditionalGeneration(config)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    side = architecture.image_size
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 2 * side if tiles else side},
        max_image_size={"longest_edge": side},
        do_image_splitting=tiles,
    )
    features = (side // architecture.patch_size // _SHUFFLE) ** 2
    return model.eval(), Idefics3Processor(images, tokenizer, image_seq_len=features, chat_template=_TEMPLATE)


def _config(architecture: TinyArchitecture, vocabulary: int, image_token_id: int) -> Idefics3Config:
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=architecture.text_hidden,
        num_hidden_layers=architecture.text_layers,
        num_attention_heads=architecture.text_heads,
        num_key_value_heads=architecture.text_heads,
        intermediate_size=architecture.text_mlp,
        max_position_embeddings=2048,
        bos_token_id=None,
    )
    vision = {
        "hidden_size": architecture.vision_hidden,
        "num_hidden_layers": architecture.vision_layers,
        "num_attention_heads": architecture.vision_heads,
        "intermediate_size": architecture.vision_mlp,
        "image_size": architecture.image_size,
        "patch_size": architecture.patch_size,
    }
    return Idefics3Config(
        text_config=text,
        vision_config=vision,
        image_token_id=image_token_id,
        scale_factor=_SHUFFLE,
        tie_word_embeddings=False,
    )
