"""The tiny LLaVA-like model: one tensor an image, a fixed number of image tokens, built from scratch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerBase,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from toolkit.config.schema import TinyArchitecture
from toolkit.errors import RecipeError
from toolkit.models.families.templates import compact_template
from toolkit.models.families.tiny_tokenizer import EOS, train_tokenizer

__all__ = ["CHAT_TEMPLATE", "IMAGE_TOKEN", "build_tiny_llava"]

IMAGE_TOKEN = "<image>"
_LANGUAGE_BLOCK = 64  # 4-bit blocks: other widths are refused by bitsandbytes' CPU kernels
_MAX_POSITIONS = 2048

CHAT_TEMPLATE = compact_template(image=IMAGE_TOKEN, eos=EOS)


def build_tiny_llava(
    architecture: TinyArchitecture,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    texts: Iterable[str] | None = None,
    seed: int,
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A random LLaVA model (SigLIP tower, Llama language model) in float32, with its processor.

    ``save_pretrained`` of both makes a directory that AutoProcessor and AutoModelForImageTextToText read. The
    same seed gives the same weights; torch's global random state is left as it was.

    Args:
        architecture: sizes; an image becomes ``(image_size / patch_size) ** 2`` tokens.
        tokenizer: used as it is (it must know ``<image>``); otherwise one is trained on ``texts``.
        texts: training texts of the tokenizer: captions, questions and answers.
        seed: seed of the weights.

    Raises:
        RecipeError: sizes that do not fit together, or neither ``tokenizer`` nor ``texts``.
    """
    _check_sizes(architecture)
    if tokenizer is None:
        if texts is None:
            raise RecipeError("architecture", "a tokenizer, or texts to train one on, is needed")
        tokenizer = train_tokenizer(
            texts,
            vocabulary=architecture.vocabulary,
            special_tokens=[IMAGE_TOKEN],
            chat_template=CHAT_TEMPLATE,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(_config(architecture, tokenizer))
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model.eval(), _processor(architecture, tokenizer)


def _check_sizes(architecture: TinyArchitecture) -> None:
    a = architecture
    problems = [
        f"{name}: {value} is not a multiple of {divisor_name} ({divisor})"
        for name, value, divisor_name, divisor in (
            ("image_size", a.image_size, "patch_size", a.patch_size),
            ("vision_hidden", a.vision_hidden, "vision_heads", a.vision_heads),
            ("text_hidden", a.text_hidden, "text_heads", a.text_heads),
            ("text_hidden", a.text_hidden, "the 4-bit block", _LANGUAGE_BLOCK),
            ("text_mlp", a.text_mlp, "the 4-bit block", _LANGUAGE_BLOCK),
        )
        if value % divisor
    ]
    if problems:
        raise RecipeError("architecture", problems)


def _config(architecture: TinyArchitecture, tokenizer: PreTrainedTokenizerBase) -> LlavaConfig:
    a = architecture
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = SiglipVisionConfig(
        hidden_size=a.vision_hidden,
        num_hidden_layers=a.vision_layers,
        num_attention_heads=a.vision_heads,
        intermediate_size=a.vision_mlp,
        image_size=a.image_size,
        patch_size=a.patch_size,
        vision_use_head=False,  # LLaVA reads patches; the pooling head would be dead weight
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=a.text_hidden,
        num_hidden_layers=a.text_layers,
        num_attention_heads=a.text_heads,
        num_key_value_heads=_key_value_heads(a),
        intermediate_size=a.text_mlp,
        max_position_embeddings=_MAX_POSITIONS,
        tie_word_embeddings=False,
        **ids,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=(a.image_size // a.patch_size) ** 2,
        vision_feature_select_strategy="full",  # SigLIP has no class token to drop
        vision_feature_layer=-1,
        tie_word_embeddings=False,
        **ids,
    )


def _key_value_heads(architecture: TinyArchitecture) -> int:
    """Half as many key/value heads as query heads, where their width stays a multiple of the 4-bit block."""
    half, odd = divmod(architecture.text_heads, 2)
    head_width = architecture.text_hidden // architecture.text_heads
    return half if not odd and (half * head_width) % _LANGUAGE_BLOCK == 0 else architecture.text_heads


def _processor(architecture: TinyArchitecture, tokenizer: PreTrainedTokenizerBase) -> LlavaProcessor:
    size = {"height": architecture.image_size, "width": architecture.image_size}
    return LlavaProcessor(
        image_processor=SiglipImageProcessorPil(size=size),
        tokenizer=tokenizer,
        patch_size=architecture.patch_size,
        vision_feature_select_strategy="full",
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=0,
        chat_template=tokenizer.chat_template or CHAT_TEMPLATE,
    )
