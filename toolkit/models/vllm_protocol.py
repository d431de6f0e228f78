"""Prompts as vLLM's tokens-in, tokens-out route takes them, and its answers as completions.

Tokens are never made from text on the way: the prompt goes as ids, with one placeholder an image, and the server says
which ids it made of that; sampled ids and their log-probabilities come back as the model drew them.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from toolkit.models.encoding import content_blocks
from toolkit.models.generation import GeneratedCompletion
from toolkit.models.loading import LoadedVlm
from toolkit.records import Conversation

__all__ = ["ProtocolError", "Sampling", "compact_ids", "completions_of", "picture_url", "request_body"]

_NEVER = -100.0  # the largest handicap that vLLM gives a token: e**-100 of its probability


class ProtocolError(Exception):
    """An answer that does not fit its request."""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True)
class Sampling:
    """How a prompt is completed: ``samples`` times, with random numbers of ``seed``."""

    max_new_tokens: int
    temperature: float
    samples: int
    seed: int


def compact_ids(vlm: LoadedVlm, prompt: Conversation) -> list[int]:
    """Token ids of a prompt, generation prompt included, in which each image is still the template's placeholder."""
    messages = [{"role": turn["role"], "content": content_blocks(turn["content"])} for turn in prompt]
    text = vlm.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    begin = vlm.tokenizer.bos_token
    own = begin is None or not text.startswith(begin)  # as processors do it: no second begin token
    return list(vlm.tokenizer(text, add_special_tokens=own)["input_ids"])


def picture_url(image: Image) -> str:
    """The picture as a ``data:`` URL, lossless."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def request_body(
    vlm: LoadedVlm, model: str, ids: Sequence[int], pictures: Sequence[str], sampling: Sampling
) -> dict[str, Any]:
    """The request: ``ids`` of ``compact_ids``, ``pictures`` of ``picture_url``; nothing is left to a default.

    Only the end tokens of this model end a completion, placeholders are not drawn, and the log-probability of each
    drawn token comes along.
    """
    placeholders = vlm.family.placeholder_ids(vlm.processor)
    body: dict[str, Any] = {
        "model": model,
        "token_ids": list(ids),
        "return_token_ids": True,
        "stream": False,
        "sampling_params": {
            "n": sampling.samples,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
            "max_tokens": sampling.max_new_tokens,
            "min_tokens": 0,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "ignore_eos": True,  # the server's own end tokens; ours follow
            "stop_token_ids": sorted(vlm.eos_ids),
            "logit_bias": {str(token): _NEVER for token in placeholders},
            "logprobs": 0,
            "detokenize": False,
        },
    }
    if pictures:
        body["content_parts"] = [{"type": "image_url", "url": url} for url in pictures]
    return body


def completions_of(
    vlm: LoadedVlm, answer: Any, prompt_ids: Tensor, sampling: Sampling
) -> list[GeneratedCompletion]:
    """The samples in an answer, in their order.

    Args:
        prompt_ids: (L,) of the prompt as this side scores it, placeholders expanded.

    Raises:
        ProtocolError: the server read another prompt, or the answer is not one to this request.
    """
    try:
        _check_prompt(answer["prompt_token_ids"], prompt_ids.tolist())
        choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
        found = [_completion(vlm, choice, sampling) for choice in choices]
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"not an answer of vLLM's generate route: {error!r}") from error
    if len(found) != sampling.samples:
        raise ProtocolError(f"{len(found)} completions for {sampling.samples} that were asked for")
    return found


def _check_prompt(theirs: Sequence[int], ours: Sequence[int]) -> None:
    if list(theirs) == list(ours):
        return
    place = next(
        (i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours))
    )
    raise ProtocolError(
        f"the server reads a prompt of {len(ours)} tokens as {len(theirs)} tokens; the first difference is at token "
        f"{place}: its completions would answer another prompt than the one that is trained on",
        remedy="tokenizer, image processor and pixel limits must be the same on both sides: serve the recipe's base, "
        "and give the server the recipe's model.max_pixels by --mm-processor-kwargs",
    )


def _completion(vlm: LoadedVlm, choice: Mapping[str, Any], sampling: Sampling) -> GeneratedCompletion:
    ids = [int(token) for token in choice["token_ids"]]
    content = choice["logprobs"]["content"]
    logprobs = [float(entry["logprob"]) for entry in content]
    ended = bool(ids) and ids[-1] in vlm.eos_ids
    if [int(entry["token_id"]) for entry in content] != ids or any(map(math.isnan, logprobs)):
        raise ProtocolError("the log-probabilities are not those of the sampled tokens")
    if not (ended or len(ids) == sampling.max_new_tokens) or any(i in vlm.eos_ids for i in ids[:-1]):
        raise ProtocolError(
            f"a completion of {len(ids)} tokens ends as {choice.get('finish_reason')!r}, "
            f"neither with an end token nor after {sampling.max_new_tokens} tokens"
        )
    text = vlm.tokenizer.decode(ids, skip_special_tokens=True).strip()
    return GeneratedCompletion(torch.tensor(ids), ended, text, torch.tensor(logprobs))
