"""Samples behind one copy of their prompt are scored, and teach, as in sequences of their own."""

import dataclasses

import pytest
import torch

from toolkit.config.schema import LoraSpec, ModelSpec
from toolkit.models.encoding import collate
from toolkit.models.families import family_of
from toolkit.models.loading import LoadedVlm, load_vlm
from toolkit.models.logprobs import score_completions
from toolkit.models.packing import can_pack, collate_sharing, prompt_runs
from toolkit.models.roles import role_parameters
from toolkit.models.structure import inner_model
from toolkit.models.vision_features import with_vision_features

from .conftest import randomise, samples
from .test_families import llava_next, qwen3_vl


def group(vlm):
    """Prompts of several lengths and pictures with one to four completions each, neighbours together."""
    prompts, completions = samples(vlm)
    texts = [*completions, completions[0][:1], completions[1][:2]]
    counts = [3, 1, 4, 2]
    repeated = [prompt for prompt, count in zip(prompts, counts, strict=False) for _ in range(count)]
    chosen = [texts[index % len(texts)] for index in range(len(repeated))]
    return repeated, chosen


def agree(vlm, prompts, completions):
    shared = collate_sharing(vlm, prompts, completions)
    assert shared.inputs["input_ids"].shape[0] == 4
    for side in ("left", "right"):
        apart = collate(vlm, prompts, completions, padding_side=side)
        expected = score_completions(vlm.model, apart, temperature=0.7, entropy=True)
        found = score_completions(vlm.model, shared, temperature=0.7, entropy=True)
        assert torch.equal(found.mask, expected.mask)
        for name in ("logprobs", "entropy"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=2e-5, rtol=0)
        real = expected.mask
        torch.testing.assert_close(found.hidden[real], expected.hidden[real], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_scores_with_pixels_and_with_features(vlm):
    prompts, completions = group(vlm)
    agree(vlm, prompts, completions)
    distinct = list({id(prompt): prompt for prompt in prompts}.values())
    featured = dict(zip(map(id, distinct), with_vision_features(vlm, distinct), strict=True))
    agree(vlm, [featured[id(prompt)] for prompt in prompts], completions)


@pytest.mark.parametrize("build", [qwen3_vl, llava_next])
@torch.no_grad()
def test_scores_of_further_families(build):
    torch.manual_seed(0)
    model, processor = build()
    agree(
        *(lambda vlm: (vlm, *group(vlm)))(
            LoadedVlm(model.eval(), processor, family_of(model), torch.device("cpu"), "tiny")
        )
    )


@torch.no_grad()
def test_scores_with_eager_attention(directories):
    vlm = load_vlm(ModelSpec(id=str(directories["llava"]), attn_implementation="eager"), trainable=False)
    agree(vlm, *group(vlm))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients(directories, checkpointing):
    for name in directories:
        spec = ModelSpec(
            id=str(directories[name]), lora=LoraSpec(rank=4, alpha=8), gradient_checkpointing=checkpointing
        )
        vlm = load_vlm(spec, trainable=True)
        randomise(vlm, "default", seed=1)
        prompts, completions = group(vlm)
        weights = torch.randn(len(prompts), 1, generator=torch.Generator().manual_seed(0))
        found = []
        for batch in (collate_sharing(vlm, prompts, completions), collate(vlm, prompts, completions)):
            vlm.model.zero_grad(set_to_none=True)
            scores = score_completions(vlm.model, batch, entropy=True)
            ((scores.logprobs * weights).sum() + 0.1 * scores.entropy.sum()).backward()
            found.append({key: p.grad.clone() for key, p in role_parameters(vlm.model, "default")})
        assert any(float(gradient.abs().max()) > 1e-3 for gradient in found[1].values())
        for key, expected in found[1].items():
            torch.testing.assert_close(found[0][key], expected, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_completions_do_not_see_one_another_and_see_their_own_picture(vlm):
    prompts, completions = group(vlm)
    before = score_completions(vlm.model, collate_sharing(vlm, prompts, completions))
    changed = [completions[0].flip(0), *completions[1:]]
    after = score_completions(vlm.model, collate_sharing(vlm, prompts, changed))
    torch.testing.assert_close(after.logprobs[1:], before.logprobs[1:], atol=2e-5, rtol=0)
    images = {
        key: -value if value.is_floating_point() else value for key, value in prompts[0].image_inputs.items()
    }
    negative = dataclasses.replace(prompts[0], image_inputs=images)
    other = [negative if prompt is prompts[0] else prompt for prompt in prompts]
    seen = score_completions(vlm.model, collate_sharing(vlm, other, completions))
    assert (seen.logprobs[:3] - before.logprobs[:3]).abs().sum(1).min() > 1e-4
    torch.testing.assert_close(seen.logprobs[3:], before.logprobs[3:], atol=2e-5, rtol=0)


def test_runs_are_neighbours_with_the_same_prompt_and_not_too_long(vlm):
    prompts, _ = samples(vlm)
    first, second = prompts[:2]
    equal = dataclasses.replace(first)
    assert prompt_runs([first] * 3 + [second, first, equal]) == [[0, 1, 2], [3], [4], [5]]
    assert [len(run) for run in prompt_runs([first] * 11, longest=4)] == [4, 4, 3]


def test_nothing_is_shared_where_the_model_does_not_allow_it(directories, monkeypatch):
    vlm = load_vlm(ModelSpec(id=str(directories["llava"])), trainable=False)
    prompts, completions = group(vlm)
    text = inner_model(vlm.model).config.get_text_config()
    for key, value in (("sliding_window", 8), ("_attn_implementation_internal", "flash_attention_2")):
        with monkeypatch.context() as patch:
            patch.setattr(text, key, value, raising=False)
            assert not can_pack(vlm)
            assert collate_sharing(vlm, prompts, completions).inputs["input_ids"].shape[0] == len(prompts)
    assert can_pack(vlm)
