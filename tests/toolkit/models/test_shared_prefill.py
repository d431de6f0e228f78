"""Shared prefill: what comes out is what whole prompts give, and a prompt's tokens pass the model once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from transformers import LlavaForConditionalGeneration, MistralConfig

from toolkit.config.schema import ModelSpec
from toolkit.models.encoding import EncodedPrompt, collate, encode_prompt
from toolkit.models.families import Family
from toolkit.models.generation import generate
from toolkit.models.loading import LoadedVlm, load_vlm
from toolkit.models.logprobs import completion_logprobs
from toolkit.models.shared_prefill import generation_inputs
from toolkit.models.structure import inner_model
from toolkit.models.vision_features import with_vision_features
from toolkit.records import image_prompt

from .conftest import picture, samples


@contextmanager
def token_counts(vlm: LoadedVlm) -> Iterator[list[tuple[int, int]]]:
    """(rows, tokens) of every forward of the language model inside the block."""
    found: list[tuple[int, int]] = []
    handle = inner_model(vlm.model).get_decoder().register_forward_pre_hook(
        lambda _module, _args, named: found.append(tuple(named["inputs_embeds"].shape[:2])), with_kwargs=True
    )  # fmt: skip
    try:
        yield found
    finally:
        handle.remove()


def mixed(vlm: LoadedVlm) -> list[EncodedPrompt]:
    """Ragged prompts: pictures of several sizes, two pictures with one text, and one prompt without a picture."""
    prompts, _ = samples(vlm)
    other = encode_prompt(vlm, image_prompt("Describe the image."), [picture(9)])
    text = encode_prompt(vlm, ({"role": "user", "content": "what colour is the circle?"},), [])
    return [*prompts[:2], other, text, *prompts[2:]]


@pytest.mark.parametrize("batch_size", [64, 7, 4])
@pytest.mark.parametrize("features", [True, False])
def test_greedy_equals_decoding_without_sharing(vlm, batch_size, features):
    prompts = with_vision_features(vlm, mixed(vlm)) if features else mixed(vlm)
    rows = [prompt for prompt in prompts for _ in range(3)]
    settings = {"max_new_tokens": 6, "temperature": 0.0, "batch_size": batch_size}
    plain = generate(vlm, rows, **settings, share_prefill=False)
    shared = generate(vlm, prompts, **settings, num_samples=3)
    assert [c.token_ids.tolist() for c in shared] == [c.token_ids.tolist() for c in plain]
    assert len({tuple(c.token_ids.tolist()) for c in plain}) > 1


@pytest.mark.parametrize("batch_size", [64, 5])
def test_seeds_of_rows_give_the_same_completions(vlm, batch_size):
    prompts, seeds = mixed(vlm), list(range(24))
    settings = {"max_new_tokens": 5, "temperature": 1.0, "num_samples": 4, "batch_size": batch_size}
    plain = generate(vlm, prompts, **settings, row_seeds=seeds, share_prefill=False)
    shared = generate(vlm, prompts, **settings, row_seeds=seeds)
    assert [c.token_ids.tolist() for c in shared] == [c.token_ids.tolist() for c in plain]


def test_logits_are_those_of_the_whole_sequence(vlm):
    prompts = mixed(vlm)
    rows = [prompts[i] for i in (0, 0, 0, 1, 2, 2, 3, 3, 4)]
    with torch.no_grad():
        inputs, _ = generation_inputs(vlm, rows, share=True)
        assert "past_key_values" in inputs
        output = inner_model(vlm.model).generate(
            **inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False, output_logits=True,
            return_dict_in_generate=True, pad_token_id=vlm.tokenizer.pad_token_id,
        )  # fmt: skip
        new = output.sequences[:, -5:]
        expected, _ = completion_logprobs(vlm.model, collate(vlm, rows, list(new)))
    logits = torch.stack(output.logits, 1).log_softmax(-1)
    found = logits.gather(-1, new[..., None]).squeeze(-1)
    assert torch.allclose(found, expected, atol=2e-5)
    assert found.std() > 1e-3


def test_a_prompt_passes_through_the_language_model_once_a_batch(vlm):
    prompts = with_vision_features(vlm, mixed(vlm))
    settings = {"max_new_tokens": 4, "temperature": 1.0, "num_samples": 8, "seed": 0}
    width = max(len(prompt.input_ids) for prompt in prompts)
    with token_counts(vlm) as counts:
        generate(vlm, prompts, **settings, batch_size=64)
    assert counts[0] == (6, width - 1)
    assert set(counts[1:]) == {(48, 1)}
    with token_counts(vlm) as counts:  # groups straddle: rows 0-11 are of two prompts, rows 12-23 of two, …
        generate(vlm, prompts, **settings, batch_size=12)
    assert [rows for rows, tokens in counts if tokens > 1] == [2, 2, 2, 2]
    with token_counts(vlm) as counts:
        generate(vlm, prompts, **settings, batch_size=64, share_prefill=False)
    assert counts[0] == (48, width)


def test_equal_prompts_of_several_rows_share_and_other_pictures_do_not(vlm):
    first = encode_prompt(vlm, image_prompt("Describe the image."), [picture(0)])
    second = encode_prompt(vlm, image_prompt("Describe the image."), [picture(1)])
    assert first.input_ids.tolist() == second.input_ids.tolist()
    with token_counts(vlm) as counts:
        generate(vlm, [first, second, replace(first)], max_new_tokens=2, temperature=0.0, num_samples=2)
    assert counts[:2] == [(2, len(first.input_ids) - 1), (6, 1)]


def test_a_row_does_not_round_differently_beside_other_rows(vlm):
    """With one sample a prompt nothing is shared; with several every batch goes the same way, groups or not."""
    prompts = mixed(vlm)
    width = max(len(prompt.input_ids) for prompt in prompts)
    with token_counts(vlm) as counts:
        generate(vlm, [*prompts, *prompts], max_new_tokens=2, temperature=0.0)
    assert counts[0] == (12, width)
    with token_counts(vlm) as counts:
        generate(vlm, prompts, max_new_tokens=2, temperature=0.0, num_samples=2, batch_size=1)
    assert [tokens for _, tokens in counts if tokens > 1] == [
        len(p.input_ids) - 1 for p in prompts for _ in range(2)
    ]


def test_beams_are_searched_without_sharing(vlm):
    with token_counts(vlm) as counts:
        found = generate(vlm, mixed(vlm), max_new_tokens=4, temperature=0.0, num_beams=2, num_samples=2)
    assert counts[0][0] == 12 * 2
    assert [c.token_ids.tolist() for c in found[::2]] == [c.token_ids.tolist() for c in found[1::2]]


def test_a_sliding_window_is_decoded_in_the_plain_way(directories, tmp_path):
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    vlm = load_vlm(ModelSpec(id=str(directories["llava"])), trainable=False)
    config = inner_model(vlm.model).config
    config.text_config = MistralConfig(
        vocab_size=config.text_config.vocab_size, sliding_window=16, pad_token_id=0, **sizes, **heads
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(tmp_path)
    vlm.processor.save_pretrained(tmp_path)
    windowed = load_vlm(ModelSpec(id=str(tmp_path)), trainable=False)
    falls_back(windowed)


def test_positions_that_only_the_model_knows_are_left_to_it(directories):
    vlm = load_vlm(ModelSpec(id=str(directories["llava"])), trainable=False)
    falls_back(replace(vlm, family=Family(vlm.family.config)))


def falls_back(vlm: LoadedVlm) -> None:
    """Nothing is shared, and what comes out is that of single rows."""
    prompts, _ = samples(vlm)
    rows = [prompt for prompt in prompts for _ in range(2)]
    assert "past_key_values" not in generation_inputs(vlm, rows, share=True)[0]
    found = generate(vlm, prompts, max_new_tokens=5, temperature=0.0, num_samples=2)
    alone = generate(vlm, rows, max_new_tokens=5, temperature=0.0, batch_size=1)
    assert [c.token_ids.tolist() for c in found] == [c.token_ids.tolist() for c in alone]


def test_a_prompt_that_ends_in_a_picture_is_prefilled_whole(vlm):
    prompt = samples(vlm)[0][0]
    cut = int((prompt.input_ids == vlm.family.image_token_id).nonzero()[-1]) + 1
    short = replace(
        prompt,
        input_ids=prompt.input_ids[:cut],
        token_inputs={key: value[:cut] for key, value in prompt.token_inputs.items()},
    )
    inputs = generation_inputs(vlm, [short, short], share=True)[0]
    assert "past_key_values" not in inputs
    assert inputs["input_ids"].shape == (2, cut)
