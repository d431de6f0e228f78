"""Families beyond the three tiny ones, and the generic behaviour for unknown model types."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from toolkit.config.schema import TinyArchitecture
from toolkit.errors import RecipeError, RunFailed
from toolkit.models.encoding import collate
from toolkit.models.families import Family, family_of
from toolkit.models.families.llava import build_tiny_llava
from toolkit.models.families.qwen2_5_vl import build_tiny_qwen2_5_vl
from toolkit.models.generation import generate
from toolkit.models.loading import LoadedVlm
from toolkit.models.logprobs import completion_logprobs
from toolkit.models.vision_features import with_vision_features

from .conftest import ARCHITECTURE, TEXTS, samples


def qwen3_vl():
    donor, processor = build_tiny_qwen2_5_vl(ARCHITECTURE, texts=TEXTS, seed=0)
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": donor.config.text_config.vocab_size,
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "intermediate_size": 64,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 3,
            "hidden_size": 64,
            "num_heads": 2,
            "intermediate_size": 64,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "out_hidden_size": 64,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        **{name: getattr(donor.config, name) for name in names},
    )
    return Qwen3VLForConditionalGeneration(config), processor


def llava_next():
    donor, processor = build_tiny_llava(ARCHITECTURE, texts=TEXTS, seed=0)
    tiles = [[48, 96], [96, 48], [96, 96]]
    config = LlavaNextConfig(
        vision_config=donor.config.vision_config,
        text_config=donor.config.text_config,
        image_token_id=donor.config.image_token_id,
        image_grid_pinpoints=tiles,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    size = {"height": 48, "width": 48}
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 48}, crop_size=size, image_grid_pinpoints=tiles
    )
    return LlavaNextForConditionalGeneration(config), LlavaNextProcessor(
        images,
        processor.tokenizer,
        patch_size=8,
        vision_feature_select_strategy="full",
        chat_template=processor.chat_template,
    )


@pytest.mark.parametrize("build", [qwen3_vl, llava_next])
@torch.no_grad()
def test_scores_alone_and_in_batches_with_pixels_and_with_features(build):
    torch.manual_seed(0)
    model, processor = build()
    vlm = LoadedVlm(model.eval(), processor, family_of(model), torch.device("cpu"), "tiny")
    prompts, completions = samples(vlm)
    featured = with_vision_features(vlm, prompts)
    order = [2, 0, 3]
    for side, source in (("left", prompts), ("right", prompts), ("left", featured)):
        batch = collate(vlm, [source[i] for i in order], [completions[i] for i in order], padding_side=side)
        together, mask = completion_logprobs(vlm.model, batch)
        for row, keep, i in zip(together, mask, order, strict=True):
            alone = completion_logprobs(vlm.model, collate(vlm, [prompts[i]], [completions[i]]))[0][0]
            torch.testing.assert_close(row[keep], alone, atol=2e-5, rtol=0)
    plain, reused = (generate(vlm, rows, max_new_tokens=4, temperature=0.0) for rows in (prompts, featured))
    assert [c.text for c in plain] == [c.text for c in reused]


def test_unknown_model_types_behave_generically_or_say_what_is_missing(vlm):
    family = Family(vlm.family.config)
    prompt = samples(vlm)[0][0]
    joined = family.collate_images([prompt.image_inputs, {}, prompt.image_inputs])
    assert {key: value.shape[0] for key, value in joined.items()} == {
        key: 2 * value.shape[0] for key, value in prompt.image_inputs.items()
    }
    assert family.feature_counts(prompt.image_inputs) is None
    with pytest.raises(RunFailed, match="cannot be put in one batch"):
        family.collate_images(
            [{"pixel_values": torch.ones(1, 3, 4, 4)}, {"pixel_values": torch.ones(1, 3, 8, 4)}]
        )
    with pytest.raises(RunFailed, match="names no image_token_id"):
        _ = Family(vlm.family.config.get_text_config()).image_token_id


def test_placeholders_are_the_image_and_video_tokens(vlm):
    names = set(vlm.tokenizer.convert_ids_to_tokens(vlm.family.placeholder_ids(vlm.processor)))
    assert vlm.tokenizer.convert_ids_to_tokens(vlm.family.image_token_id) in names
    assert all("image" in n or "video" in n or "vision" in n or "img" in n or "row" in n for n in names)
    assert not vlm.eos_ids & set(vlm.family.placeholder_ids(vlm.processor))


def test_tiny_models_are_reproducible_and_leave_the_random_state():
    state = torch.get_rng_state()
    first, second = (build_tiny_llava(ARCHITECTURE, texts=TEXTS, seed=5)[0].state_dict() for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    other = build_tiny_llava(ARCHITECTURE, texts=TEXTS, seed=6)[0].state_dict()
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_sizes_that_do_not_fit_are_all_named_at_once():
    wrong = TinyArchitecture(image_size=50, text_hidden=96, text_mlp=100, vocabulary=100)
    with pytest.raises(RecipeError) as caught:
        build_tiny_llava(wrong, texts=TEXTS, seed=0)
    assert all(name in str(caught.value) for name in ("image_size", "text_hidden", "text_mlp"))
    with pytest.raises(RecipeError, match="vocabulary: found 100"):
        build_tiny_llava(TinyArchitecture(vocabulary=100), texts=TEXTS, seed=0)
    with pytest.raises(RecipeError, match="tokenizer, or texts"):
        build_tiny_llava(TinyArchitecture(), seed=0)


def test_a_tiny_llava_is_trained_through_every_part():
    model, processor = build_tiny_llava(TinyArchitecture(), texts=TEXTS * 20, seed=0)
    vlm = LoadedVlm(model, processor, family_of(model), torch.device("cpu"), "tiny")
    prompts, completions = samples(vlm)
    completion_logprobs(model, collate(vlm, prompts, completions))[0].sum().backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    # LLaVA reads the tower before its last norm, in every checkpoint of this architecture.
    assert idle == {"model.vision_tower.post_layernorm.weight", "model.vision_tower.post_layernorm.bias"}
