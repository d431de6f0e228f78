"""Two completions behind one prompt score, and teach, exactly as in sequences of their own."""

import dataclasses

import pytest
import torch

from reward_models.model import VlmRewardModel
from reward_models.objective import pair_loss
from reward_models.pairs import PairCollator, score_pairs
from reward_models.prompts import PromptEncoder
from toolkit.config.schema import LoraSpec, ModelSpec, RewardLossSpec
from toolkit.models.loading import load_vlm
from toolkit.models.roles import role_parameters


@pytest.fixture(scope="module")
def ragged(pairs):
    """Pairs of very different lengths, empty texts included."""
    texts = ["", "red", "a " * 12, "a red picture of nothing", "green or blue"]
    return [
        dataclasses.replace(row, chosen=texts[i % 5], rejected=texts[(i + 1 + i // 5) % 5])
        for i, row in enumerate(pairs)
    ]


def trainable(folder, attention, dtype="float32"):
    spec = ModelSpec(
        id=str(folder), lora=LoraSpec(rank=4, alpha=8), attn_implementation=attention, dtype=dtype
    )
    torch.manual_seed(0)
    model = VlmRewardModel.new(load_vlm(spec, trainable=True))
    with torch.no_grad():
        for _, parameter in role_parameters(model.model, "default"):
            parameter.copy_(0.3 * torch.randn_like(parameter))
        model.head.linear.weight.normal_(std=0.3)
    return model


def gradients(model, rows, *, pack):
    batch = PairCollator(PromptEncoder(model.vlm), pack=pack)(rows)["pairs"]
    assert (batch.ends is not None) == pack
    model.zero_grad(set_to_none=True)
    chosen, rejected = score_pairs(model, batch)
    pair_loss(chosen, rejected, batch.labels, RewardLossSpec(centring=0.1)).backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return torch.stack([chosen, rejected]).detach(), found


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["llava", "idefics3", "qwen2_5_vl"])
def test_packed_pairs_give_the_scores_and_gradients_of_separate_sequences(family, attention, bases, ragged):
    model = trainable(bases[family], attention)
    apart, expected = gradients(model, ragged, pack=False)
    packed, found = gradients(model, ragged, pack=True)
    torch.testing.assert_close(packed, apart, atol=1e-5, rtol=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4)
