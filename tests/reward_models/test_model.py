"""Scores depend on the picture and the text, and on nothing else of the batch."""

import dataclasses

import pytest
import torch

from reward_models.model import VlmRewardModel
from reward_models.pairs import PairCollator, score_pairs
from reward_models.prompts import PromptEncoder
from toolkit.models.encoding import collate, encode_completion
from toolkit.models.loading import load_vlm
from toolkit.models.structure import inner_model


def scores_of(model, rows, *, side="right", encoder=None):
    encoder = encoder or PromptEncoder(model.vlm)
    prompts = encoder.encode([row.prompt for row in rows], [row.images for row in rows])
    texts = encoder.completions([row.chosen for row in rows])
    with torch.no_grad():
        return model(collate(model.vlm, prompts, texts, padding_side=side))


def test_a_row_alone_scores_as_in_any_batch_position_and_padding_side(reward_model, pairs):
    rows = [
        dataclasses.replace(pairs[0], chosen="red"),
        pairs[3],
        dataclasses.replace(pairs[7], chosen="a " * 9),
    ]
    together = scores_of(reward_model, rows)
    assert together.std() > 1e-3
    for index, row in enumerate(rows):
        assert scores_of(reward_model, [row])[0] == pytest.approx(together[index].item(), abs=1e-5)
    torch.testing.assert_close(scores_of(reward_model, rows, side="left"), together, atol=1e-5, rtol=0)
    torch.testing.assert_close(scores_of(reward_model, rows[::-1]), together.flip(0), atol=1e-5, rtol=0)


def test_swapping_the_pictures_of_two_rows_changes_both_scores(reward_model, pairs):
    first, second = pairs[0], dataclasses.replace(pairs[7], chosen=pairs[0].chosen)
    assert first.images != second.images
    own = scores_of(reward_model, [first, second])
    swapped = [
        dataclasses.replace(first, images=second.images),
        dataclasses.replace(second, images=first.images),
    ]
    other = scores_of(reward_model, swapped)
    assert ((own - other).abs() > 1e-4).all()


def test_features_that_are_reused_give_the_scores_of_pixels(reward_model, pairs):
    pixels = PromptEncoder(reward_model.vlm)
    pixels._reuses_features = False
    torch.testing.assert_close(
        scores_of(reward_model, pairs[:5]),
        scores_of(reward_model, pairs[:5], encoder=pixels),
        atol=1e-6,
        rtol=0,
    )


def test_a_pad_id_that_equals_the_end_id_changes_no_score(new_reward, bases, pairs):
    model, _ = new_reward(bases["llava"])
    rows = [
        dataclasses.replace(pairs[0], chosen="red"),
        dataclasses.replace(pairs[1], chosen="a red red picture"),
    ]
    before = scores_of(model, rows)
    model.vlm.tokenizer.pad_token = model.vlm.tokenizer.eos_token
    torch.testing.assert_close(scores_of(model, rows), before, atol=1e-6, rtol=0)


def test_blank_pictures_take_the_information_away(reward_model, pairs):
    blind = PromptEncoder(reward_model.vlm, blank_images=True)
    same_text = [dataclasses.replace(row, chosen="a picture") for row in pairs]
    by_size = {}
    for row, score in zip(same_text, scores_of(reward_model, same_text, encoder=blind).tolist(), strict=True):
        by_size.setdefault(row.images[0].name, set()).add(round(score, 5))
    real = scores_of(reward_model, same_text)
    assert all(len(found) == 1 for found in by_size.values())
    assert (real - scores_of(reward_model, same_text, encoder=blind)).abs().max() > 1e-3


def test_the_head_starts_at_zero_and_trains_in_float32(bases, new_reward):
    _, spec = new_reward(bases["llava"])
    vlm = load_vlm(spec, trainable=True)
    model = VlmRewardModel.new(vlm)
    assert model.head.linear.weight.dtype == torch.float32
    assert not model.head.linear.weight.any()
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any(name.startswith("head.") for name in names)
    assert all("lora_" in name or name.startswith("head.") for name in names)


@pytest.mark.parametrize("pack", [False, True])
def test_a_pair_scores_as_its_texts_do_alone_and_every_trained_tensor_gets_a_gradient(
    reward_model, pairs, pack
):
    batch = PairCollator(PromptEncoder(reward_model.vlm), pack=pack)(pairs[:3])["pairs"]
    chosen, rejected = score_pairs(reward_model, batch)
    torch.testing.assert_close(chosen, scores_of(reward_model, pairs[:3]), atol=1e-5, rtol=0)
    bad = [dataclasses.replace(row, chosen=row.rejected) for row in pairs[:3]]
    torch.testing.assert_close(rejected, scores_of(reward_model, bad), atol=1e-5, rtol=0)
    (chosen - rejected).pow(2).sum().backward()
    trained = [parameter for parameter in reward_model.parameters() if parameter.requires_grad]
    # Scores of one pair share the head's bias, so it cancels in their difference.
    silent = [p for p in trained if p.grad is None or not p.grad.any()]
    assert all(p is reward_model.head.linear.bias for p in silent)
    reward_model.zero_grad(set_to_none=True)


def test_a_picture_goes_through_the_tower_once(reward_model, pairs, monkeypatch):
    encoder = PromptEncoder(reward_model.vlm)
    calls = []
    trunk = inner_model(reward_model.model).model
    original = trunk.get_image_features
    monkeypatch.setattr(trunk, "get_image_features", lambda *a, **k: calls.append(1) or original(*a, **k))
    collator = PairCollator(encoder)
    for _ in range(3):
        with torch.no_grad():
            score_pairs(reward_model, collator(pairs)["pairs"])
    assert len(calls) == 1


def test_the_cache_forgets_the_oldest_and_still_scores_the_same(reward_model, pairs):
    small = PromptEncoder(reward_model.vlm, max_bytes=20_000)
    first = scores_of(reward_model, pairs, encoder=small)
    torch.testing.assert_close(scores_of(reward_model, pairs, encoder=small), first)
    assert small._prompts._bytes <= 10_000
    assert small._features._bytes <= 10_000


def test_an_empty_completion_is_its_end_token(reward_model):
    vlm = reward_model.vlm
    *before, last = encode_completion(vlm, "").tolist()
    assert last in vlm.eos_ids
    assert vlm.tokenizer.decode(before).strip() == ""  # Idefics3's template writes a space after the role
