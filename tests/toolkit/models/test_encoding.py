"""Encoding: what the chat template would write, image tokens that match the features, nothing cut off."""

from __future__ import annotations

import pytest

from toolkit.errors import DataError
from toolkit.models.encoding import check_prompts, collate, encode_completion, encode_prompt
from toolkit.models.structure import inner_model
from toolkit.records import image_prompt

from .conftest import picture, samples


@pytest.mark.parametrize("text", ["a red circle", "", "Two\nlines, and a cross.", "naïve 圆 ✓"])
def test_prompt_and_completion_are_the_whole_conversation(vlm, text):
    conversation = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": picture(0)},
                {"type": "text", "text": "Describe the image."},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": text}]},
    ]
    whole = vlm.processor.apply_chat_template(conversation, tokenize=True, return_dict=True)["input_ids"][0]
    prompt = encode_prompt(vlm, image_prompt("Describe the image."), [picture(0)]).input_ids.tolist()
    completion = encode_completion(vlm, text).tolist()
    assert completion[-1] in vlm.eos_ids
    assert list(whole)[: len(prompt) + len(completion)] == prompt + completion
    assert encode_completion(vlm, text, end=False).tolist() == completion[:-1]
    decoded = vlm.tokenizer.decode(completion, skip_special_tokens=True)
    assert decoded.split() == text.split()


def test_image_tokens_equal_features_for_every_shape(vlm):
    for prompt in samples(vlm)[0]:
        counted = vlm.family.feature_counts(prompt.image_inputs)
        assert sum(counted) == (prompt.input_ids == vlm.family.image_token_id).sum()


def test_mixed_shapes_really_differ(vlm):
    lengths = {len(prompt.input_ids) - i for i, prompt in enumerate(samples(vlm)[0])}
    assert (len(lengths) > 1) == (vlm.family.name != "llava")


def test_two_pictures_in_one_prompt(vlm):
    prompt = encode_prompt(
        vlm, image_prompt("what colour is the circle?", images=2), [picture(1), picture(2, 96, 40)]
    )
    batch = collate(vlm, [prompt, *samples(vlm)[0]])
    inner_model(vlm.model)(**batch.model_inputs())


def test_an_image_token_in_a_text_is_refused_before_the_first_row_is_needed(vlm):
    token = vlm.tokenizer.convert_ids_to_tokens(vlm.family.image_token_id)
    wrong = image_prompt(f"What is {token} here?")
    with pytest.raises(DataError, match="the text holds the image token"):
        encode_prompt(vlm, wrong, [picture(0)])
    check_prompts(vlm, [("row 1", image_prompt("x"))])
    with pytest.raises(DataError) as caught:
        check_prompts(vlm, [("row 1", wrong), ("row 1", image_prompt("x")), ("row 3", wrong)])
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["row 1", "row 3"]


def test_a_prompt_beyond_the_model_s_positions_is_refused(vlm, monkeypatch):
    short = encode_prompt(vlm, image_prompt("x"), [picture(0)])
    config = inner_model(vlm.model).config.get_text_config()
    monkeypatch.setattr(config, "max_position_embeddings", len(short.input_ids))
    with pytest.raises(DataError, match=f"{len(short.input_ids)} tokens, picture and template included"):
        encode_prompt(vlm, image_prompt("x"), [picture(0)])
    monkeypatch.setattr(config, "max_position_embeddings", len(short.input_ids) + 1)
    encode_prompt(vlm, image_prompt("x"), [picture(0)])


def test_wrong_number_of_pictures_is_refused(vlm):
    with pytest.raises(DataError, match="2 images for 1 image blocks"):
        encode_prompt(vlm, image_prompt("x"), [picture(0), picture(1)])


def test_image_token_in_the_text_is_refused(vlm):
    token = vlm.tokenizer.convert_ids_to_tokens(vlm.family.image_token_id)
    with pytest.raises(DataError):
        encode_prompt(vlm, image_prompt(f"what is {token}?"), [picture(0)])


def test_completion_mask_marks_the_completion_alone(vlm):
    prompts, completions = samples(vlm)
    for side in ("left", "right"):
        batch = collate(vlm, prompts, completions, padding_side=side)
        for ids, mask, completion in zip(
            batch.inputs["input_ids"], batch.completion_mask, completions, strict=True
        ):
            assert ids[mask].tolist() == completion.tolist()
