"""What goes to a vLLM server and what is read from its answers; ``tests/toolkit/rl`` runs both against servers."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
import torch
from PIL import Image

from toolkit.models.encoding import encode_prompt
from toolkit.models.loading import LoadedVlm
from toolkit.models.vllm_protocol import (
    ProtocolError,
    Sampling,
    compact_ids,
    completions_of,
    picture_url,
    request_body,
)
from toolkit.records import image_prompt

SAMPLING = Sampling(max_new_tokens=3, temperature=0.7, samples=1, seed=5)


def answer(vlm: LoadedVlm, tokens: list[int], **changes: Any) -> dict[str, Any]:
    content = [{"token_id": token, "logprob": -0.5} for token in tokens]
    choice = {"index": 0, "token_ids": tokens, "finish_reason": "stop", "logprobs": {"content": content}}
    return {"prompt_token_ids": [5, 6], "choices": [choice | changes]}


def test_compact_ids_are_the_prompt_with_one_placeholder_an_image(vlm: LoadedVlm) -> None:
    prompt = image_prompt("Which is red?", images=2)
    images = [Image.new("RGB", (30, 30), colour) for colour in ("red", "blue")]
    whole = encode_prompt(vlm, prompt, images).input_ids.tolist()
    compact = compact_ids(vlm, prompt)
    place = vlm.family.image_token_id
    assert compact.count(place) == 2
    assert len(compact) < len(whole)
    # What lies before the first image and after the last is the same, token by token.
    assert whole[: compact.index(place)] == compact[: compact.index(place)]
    tail = compact[len(compact) - compact[::-1].index(place) :]
    assert whole[-len(tail) :] == tail


def test_plain_text_needs_no_blocks(vlm: LoadedVlm) -> None:
    plain = compact_ids(vlm, [{"role": "user", "content": "a red circle"}])
    assert plain == encode_prompt(vlm, [{"role": "user", "content": "a red circle"}], []).input_ids.tolist()


def test_a_picture_arrives_bit_for_bit() -> None:
    image = Image.effect_noise((7, 5), 80.0).convert("RGB")
    kind, _, data = picture_url(image).partition(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").tobytes() == image.tobytes()


def test_text_prompts_carry_no_pictures(vlm: LoadedVlm) -> None:
    body = request_body(vlm, "adapter", [1, 2], [], SAMPLING)
    assert "content_parts" not in body
    assert body["token_ids"] == [1, 2]
    assert body["sampling_params"]["seed"] == 5


def test_completions_end_with_our_end_token_or_at_the_limit(vlm: LoadedVlm) -> None:
    end, prompt = min(vlm.eos_ids), torch.tensor([5, 6])
    word = vlm.tokenizer.encode("circle", add_special_tokens=False)[-1]
    (ended,) = completions_of(vlm, answer(vlm, [word, end]), prompt, SAMPLING)
    (cut,) = completions_of(vlm, answer(vlm, [word] * 3), prompt, SAMPLING)
    assert (ended.ended, cut.ended) == (True, False)
    assert ended.token_ids.tolist() == [word, end]
    assert ended.text == vlm.tokenizer.decode([word]).strip()
    assert ended.logprobs is not None
    assert ended.logprobs.tolist() == [-0.5, -0.5]


@pytest.mark.parametrize(
    ("tokens", "changes", "told"),
    [
        ([10], {}, "ends as 'stop', neither with an end token nor after 3 tokens"),
        ([10, 10, 10], {"logprobs": None}, "not an answer of vLLM's generate route"),
        ([10, 10, 10], {"logprobs": {"content": []}}, "not those of the sampled tokens"),
        ([10, 10, 10], {"token_ids": None}, "not an answer of vLLM's generate route"),
    ],
)
def test_answers_that_do_not_fit_are_refused(
    vlm: LoadedVlm, tokens: list[int], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ProtocolError, match=told):
        completions_of(vlm, answer(vlm, tokens, **changes), torch.tensor([5, 6]), SAMPLING)


def test_another_prompt_or_number_of_samples_is_refused(vlm: LoadedVlm) -> None:
    good = answer(vlm, [10, 10, 10])
    with pytest.raises(ProtocolError, match="first difference is at token 1") as caught:
        completions_of(vlm, good, torch.tensor([5, 7]), SAMPLING)
    assert "--mm-processor-kwargs" in str(caught.value.remedy)
    with pytest.raises(
        ProtocolError, match="prompt of 3 tokens as 2 tokens; the first difference is at token 2"
    ):
        completions_of(vlm, good, torch.tensor([5, 6, 7]), SAMPLING)
    two = Sampling(max_new_tokens=3, temperature=0.7, samples=2, seed=5)
    with pytest.raises(ProtocolError, match="1 completions for 2"):
        completions_of(vlm, good, torch.tensor([5, 6]), two)
    for nonsense in ("Success", None, {"choices": []}):
        with pytest.raises(ProtocolError, match="not an answer"):
            completions_of(vlm, nonsense, torch.tensor([5, 6]), SAMPLING)
