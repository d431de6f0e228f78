"""Log-probabilities: the same alone and in any batch, and always with the right picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from toolkit.models.encoding import collate
from toolkit.models.heads import ScalarHead, pool_last
from toolkit.models.logprobs import completion_logprobs, score_completions
from toolkit.models.structure import inner_model
from toolkit.models.vision_features import with_vision_features

from .conftest import picture, samples

TOLERANCE = {"atol": 2e-5, "rtol": 0}


@torch.no_grad()
def rows(vlm, prompts, completions, side="left", **options):
    logprobs, mask = completion_logprobs(
        vlm.model, collate(vlm, prompts, completions, padding_side=side), **options
    )
    return [row[keep] for row, keep in zip(logprobs, mask, strict=True)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_row_alone_scores_as_in_any_batch(vlm, side):
    prompts, completions = samples(vlm)
    alone = [rows(vlm, [p], [c])[0] for p, c in zip(prompts, completions, strict=True)]
    for order in ([0, 1, 2, 3], [3, 1], [2, 0, 3]):
        together = rows(vlm, [prompts[i] for i in order], [completions[i] for i in order], side)
        for i, row in zip(order, together, strict=True):
            torch.testing.assert_close(row, alone[i], **TOLERANCE)


def test_equals_the_whole_model_and_its_labels(vlm):
    prompts, completions = samples(vlm)
    batch = collate(vlm, prompts[:1], completions[:1])
    with torch.no_grad():
        logits = vlm.model(**batch.model_inputs()).logits.float()
    expected = (
        logits[0].log_softmax(-1)[len(prompts[0].input_ids) - 1 : -1].gather(-1, completions[0][:, None])
    )
    torch.testing.assert_close(rows(vlm, prompts[:1], completions[:1])[0], expected[:, 0], **TOLERANCE)


def test_swapping_pictures_changes_scores(vlm):
    prompts, completions = samples(vlm)
    from toolkit.models.encoding import encode_prompt
    from toolkit.records import image_prompt

    pair = [encode_prompt(vlm, image_prompt("Describe the image."), [picture(seed)]) for seed in (5, 6)]
    swapped = [
        replace(pair[0], image_inputs=pair[1].image_inputs),
        replace(pair[1], image_inputs=pair[0].image_inputs),
    ]
    for before, after in zip(
        rows(vlm, pair, completions[:2]), rows(vlm, swapped, completions[:2]), strict=True
    ):
        assert (before - after).abs().max() > 1e-5


def test_reused_features_score_the_same_for_shuffled_rows(vlm):
    prompts, completions = samples(vlm)
    featured = with_vision_features(vlm, prompts, batch_size=3)
    assert all(prompt.features for prompt in featured)
    order = [2, 0, 3]
    plain = rows(vlm, [prompts[i] for i in order], [completions[i] for i in order])
    reused = rows(vlm, [featured[i] for i in order], [completions[i] for i in order])
    for a, b in zip(plain, reused, strict=True):
        torch.testing.assert_close(a, b, **TOLERANCE)


def test_prompts_with_and_without_pictures_share_a_batch(vlm):
    from toolkit.models.encoding import encode_prompt

    prompts, completions = samples(vlm)
    text_only = encode_prompt(vlm, [{"role": "user", "content": "what colour is the circle?"}], [])
    mixed = [prompts[1], text_only, prompts[0]]
    answers = [completions[1], completions[0], completions[3]]
    alone = [rows(vlm, [p], [c])[0] for p, c in zip(mixed, answers, strict=True)]
    for a, b in zip(rows(vlm, mixed, answers), alone, strict=True):
        torch.testing.assert_close(a, b, **TOLERANCE)
    for a, b in zip(rows(vlm, with_vision_features(vlm, mixed), answers), alone, strict=True):
        torch.testing.assert_close(a, b, **TOLERANCE)


def test_temperature_and_entropy_are_those_of_the_sampled_distribution(vlm):
    prompts, completions = samples(vlm)
    batch = collate(vlm, prompts, completions)
    with torch.no_grad():
        hot = score_completions(vlm.model, batch, temperature=2.0, entropy=True)
        logits = inner_model(vlm.model).get_output_embeddings()(hot.hidden).float() / 2.0
    distribution = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(hot.entropy[hot.mask], distribution.entropy()[hot.mask], **TOLERANCE)
    assert (hot.entropy[~hot.mask] == 0).all()
    assert (hot.logprobs[~hot.mask] == 0).all()
    assert hot.mask.sum(1).tolist() == [len(c) for c in completions]


def test_pooled_state_does_not_depend_on_the_padding_side(vlm):
    from toolkit.models.structure import trunk

    prompts, completions = samples(vlm)
    pooled = []
    for side in ("left", "right"):
        batch = collate(vlm, prompts, completions, padding_side=side)
        with torch.no_grad():
            hidden = trunk(vlm.model)(**batch.model_inputs()).last_hidden_state
        pooled.append(pool_last(hidden, batch.inputs["attention_mask"]))
    torch.testing.assert_close(pooled[0], pooled[1], atol=1e-4, rtol=0)


def test_head_is_float32_and_starts_at_zero():
    head = ScalarHead(8)
    values = head(torch.randn(2, 3, 8, dtype=torch.bfloat16))
    assert values.shape == (2, 3)
    assert values.dtype == torch.float32
    assert (values == 0).all()
    assert ScalarHead(8, init_std=0.1)(torch.randn(2, 8)).abs().min() > 0
