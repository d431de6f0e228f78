"""Prompts and completions as tensors: encoded one by one without padding, joined into batches late.

Late joining is what lets every family survive shuffling and minibatching: a row carries its own image
tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL.Image import Image
from torch import Tensor

from toolkit.errors import DataError
from toolkit.models.families.features import ImageFeatures, as_encoder_output
from toolkit.models.structure import inner_model
from toolkit.records import Conversation

if TYPE_CHECKING:
    from toolkit.models.loading import LoadedVlm

__all__ = [
    "TOKEN_KEYS",
    "CompletionPlaces",
    "EncodedPrompt",
    "VlmBatch",
    "check_prompts",
    "collate",
    "content_blocks",
    "encode_completion",
    "encode_prompt",
]

_TEXT_KEYS = ("input_ids", "attention_mask")
_TYPE_KEYS = ("mm_token_type_ids", "token_type_ids")  # zero over the completion
TOKEN_KEYS = (*_TEXT_KEYS, *_TYPE_KEYS)  # inputs with one value a token
_PROBE: Conversation = ({"role": "user", "content": [{"type": "text", "text": "?"}]},)


@dataclass(frozen=True)
class EncodedPrompt:
    """One prompt with its images, unpadded, on the CPU.

    Attributes:
        input_ids: (L,), the generation prompt included.
        image_inputs: the processor's image tensors of this sample alone.
        token_inputs: further inputs of shape (L,), such as ``mm_token_type_ids``.
        features: image features computed beforehand (``toolkit.models.vision_features``), used instead of
            pixels.
    """

    input_ids: Tensor
    image_inputs: dict[str, Tensor] = field(default_factory=dict)
    token_inputs: dict[str, Tensor] = field(default_factory=dict)
    features: tuple[ImageFeatures, ...] | None = None


@dataclass(frozen=True)
class CompletionPlaces:
    """Where the N completions of a batch stand in its B sequences; T is the longest completion.

    Attributes:
        sequence: (N,), the sequence that holds the completion.
        before: (N, T), the place of the state that predicts each token.
        at: (N, T), the place of each token; 0 where ``mask`` is False.
        mask: (N, T) bool, True on real tokens.
    """

    sequence: Tensor
    before: Tensor
    at: Tensor
    mask: Tensor


@dataclass(frozen=True)
class VlmBatch:
    """A padded batch on the model's device.

    Attributes:
        inputs: keyword arguments of the model, ``input_ids`` and ``attention_mask`` (B, L) among them.
        completion_mask: (B, L) bool, True on the tokens of the completion, its end token included.
        features: image features that replace the pixels, in the order of the images in the batch.
        places: of the completions, where a sequence holds several of them (``toolkit.models.packing``).
    """

    inputs: dict[str, Tensor]
    completion_mask: Tensor
    features: tuple[ImageFeatures, ...] | None = None
    places: CompletionPlaces | None = None

    def model_inputs(self) -> dict[str, Any]:
        """Arguments of one call. The features' container is new each time, because generate changes it."""
        if self.features is None:
            return dict(self.inputs)
        return {**self.inputs, "mm_encoder_outputs": {"image": as_encoder_output(self.features)}}


def encode_prompt(vlm: LoadedVlm, prompt: Conversation, images: Sequence[Image]) -> EncodedPrompt:
    """Encode a conversation up to the assistant's turn, generation prompt included. Never truncates.

    Args:
        prompt: messages; as many ``{"type": "image"}`` blocks as ``images``.
        images: decoded pictures, in the order of their blocks.

    Raises:
        DataError: another number of images than blocks or of image tokens than features; an image token in the text;
            more tokens than the model has positions for.
    """
    messages = _with_images(vlm, prompt, images)
    encoded = vlm.processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    input_ids = encoded["input_ids"][0]
    extra = {key: value for key, value in encoded.items() if key not in _TEXT_KEYS}
    token_inputs = {key: value[0] for key, value in extra.items() if key in _TYPE_KEYS}
    image_inputs = {key: value for key, value in extra.items() if key not in _TYPE_KEYS} if images else {}
    _check_image_tokens(vlm, input_ids, image_inputs)
    _check_length(vlm, len(input_ids))
    return EncodedPrompt(input_ids, image_inputs, token_inputs)


def _with_images(vlm: LoadedVlm, prompt: Conversation, images: Sequence[Image]) -> list[dict[str, Any]]:
    """The messages with each image block holding its picture."""
    messages = [
        {"role": message["role"], "content": content_blocks(message["content"])} for message in prompt
    ]
    blocks = [block for message in messages for block in message["content"]]
    placeholders = [block for block in blocks if block.get("type") == "image"]
    if len(placeholders) != len(images):
        raise DataError(
            "prompt",
            f"found {len(images)} images for {len(placeholders)} image blocks",
            remedy="give one {'type': 'image'} block for each image",
        )
    check_prompts(vlm, [("this one", messages)])
    for block, image in zip(placeholders, images, strict=True):
        block["image"] = image
    return messages


def check_prompts(vlm: LoadedVlm, prompts: Iterable[tuple[str, Iterable[Mapping[str, Any]]]]) -> None:
    """Look through all prompts, each with what it is called, before the first is needed.

    Raises:
        DataError: the text of one or more holds the image token, which would be read as a picture.
    """
    token = vlm.tokenizer.convert_ids_to_tokens(vlm.family.image_token_id)
    wrong = [
        name
        for name, prompt in prompts
        if any(
            token in block.get("text", "")
            for message in prompt
            for block in content_blocks(message["content"])
        )
    ]
    if wrong:
        problems = [f"{name}: the text holds the image token {token}" for name in wrong]
        raise DataError("prompts", problems, remedy="remove it; images are blocks of their own")


def content_blocks(content: Any) -> list[dict[str, Any]]:
    """A message's content as a list of new blocks."""
    return (
        [{"type": "text", "text": content}]
        if isinstance(content, str)
        else [dict(block) for block in content]
    )


def _check_image_tokens(vlm: LoadedVlm, input_ids: Tensor, image_inputs: dict[str, Tensor]) -> None:
    counts = vlm.family.feature_counts(image_inputs)
    found = int((input_ids == vlm.family.image_token_id).sum())
    if counts is not None and sum(counts) != found:
        raise DataError(
            "prompt",
            f"{found} image tokens in the text, but the vision tower gives {sum(counts)} features",
            remedy="processor and model must belong together",
        )


def _check_length(vlm: LoadedVlm, tokens: int) -> None:
    limit = getattr(inner_model(vlm.model).config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and tokens >= limit:
        raise DataError(
            "prompt",
            f"{tokens} tokens, picture and template included, and the model has positions for {limit}",
            remedy="shorten the text, or limit the picture with model.max_pixels; nothing is ever cut",
        )


def encode_completion(vlm: LoadedVlm, text: str, *, end: bool = True) -> Tensor:
    """Token ids (T,) of an answer, as the chat template writes it after the generation prompt.

    Args:
        end: keep the end token; without it the answer is one that was cut off.

    The ids equal those of the whole conversation from the end of the prompt on. What a template writes after
    the end token (a newline, say) is left out; where it writes none, the tokenizer's own end token is
    appended.
    """
    answer = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    template, tokenizer = vlm.processor.apply_chat_template, vlm.tokenizer
    before = tokenizer.encode(template(list(_PROBE), add_generation_prompt=True), add_special_tokens=False)
    whole = tokenizer.encode(template([*_PROBE, answer]), add_special_tokens=False)
    if whole[: len(before)] != before:
        raise DataError(
            "chat template",
            "its generation prompt is not the beginning of the assistant's turn",
            remedy="use a model whose chat template continues the prompt",
        )
    ids = whole[len(before) :]
    ends = [position for position, token in enumerate(ids) if token in vlm.eos_ids]
    body, last = (ids[: ends[-1]], ids[ends[-1]]) if ends else (ids, tokenizer.eos_token_id)
    return torch.tensor([*body, last] if end else body, dtype=torch.long)


def collate(
    vlm: LoadedVlm,
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[Tensor] | None = None,
    *,
    padding_side: Literal["left", "right"] = "left",
) -> VlmBatch:
    """Join samples, in any order and of any image sizes, into one padded batch on the model's device.

    Args:
        completions: token ids (T_i,) that follow each prompt; none for generation.
        padding_side: where the padding goes; log-probabilities do not depend on it.
    """
    tails = [torch.empty(0, dtype=torch.long)] * len(prompts) if completions is None else list(completions)
    rows = [torch.cat([prompt.input_ids, tail.cpu()]) for prompt, tail in zip(prompts, tails, strict=True)]
    pad = vlm.tokenizer.pad_token_id
    inputs = {
        "input_ids": _pad(rows, pad, padding_side),
        "attention_mask": _pad([torch.ones_like(row) for row in rows], 0, padding_side),
    }
    for key in dict.fromkeys(key for prompt in prompts for key in prompt.token_inputs):
        values = [
            torch.cat(
                [prompt.token_inputs.get(key, torch.zeros_like(prompt.input_ids)), torch.zeros_like(tail)]
            )
            for prompt, tail in zip(prompts, tails, strict=True)
        ]
        inputs[key] = _pad(values, 0, padding_side)
    if not vlm.family.own_positions and completions is not None:
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    is_completion = [
        torch.arange(len(row)) >= len(prompt.input_ids) for row, prompt in zip(rows, prompts, strict=True)
    ]
    mask = _pad([flags.long() for flags in is_completion], 0, padding_side).bool()
    images, features = _join_images(vlm, prompts)
    device = vlm.device
    inputs = {key: value.to(device) for key, value in {**inputs, **images}.items()}
    return VlmBatch(inputs, mask.to(device), features)


def _join_images(
    vlm: LoadedVlm, prompts: Sequence[EncodedPrompt]
) -> tuple[dict[str, Tensor], tuple[ImageFeatures, ...] | None]:
    """Image tensors of a batch, or its features and the grids that positions are computed from."""
    images = vlm.family.collate_images([prompt.image_inputs for prompt in prompts])
    if not images or any(prompt.features is None for prompt in prompts if prompt.image_inputs):
        return images, None
    features = tuple(feature for prompt in prompts for feature in prompt.features or ())
    return {key: value for key, value in images.items() if not key.startswith("pixel_")}, features


def _pad(rows: Sequence[Tensor], value: int, side: Literal["left", "right"]) -> Tensor:
    """(B, longest) of int64."""
    return torch.nn.utils.rnn.pad_sequence(
        list(rows), batch_first=True, padding_value=value, padding_side=side
    )
