"""The clipped losses against token loops written from the PPO paper."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from toolkit.rl.losses import clipped_policy_loss, clipped_value_loss, explained_variance


def batch(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    new, old, other = (torch.randn(6, 5, generator=generator) for _ in range(3))
    mask = (torch.arange(5)[None] < torch.tensor([5, 1, 3, 0, 2, 4])[:, None]).float()
    return new * 0.5, old * 0.5, other, mask


@pytest.mark.parametrize("seed", range(3))
def test_policy_loss_equals_the_loop(seed: int) -> None:
    new, old, advantages, mask = batch(seed)
    total, clipped, kl = 0.0, 0, 0.0
    for row in range(6):
        for t in range(5):
            if not mask[row, t]:
                continue
            log_ratio = float(new[row, t] - old[row, t])
            ratio, advantage = math.exp(log_ratio), float(advantages[row, t])
            bounded = min(max(ratio, 0.8), 1.2)
            total += -min(ratio * advantage, bounded * advantage)
            clipped += bounded * advantage < ratio * advantage
            kl += ratio - 1.0 - log_ratio
    got = clipped_policy_loss(new, old, advantages, mask, clip=0.2)
    assert float(got.loss) == pytest.approx(total, abs=1e-4)
    assert int(got.clipped) == clipped
    assert float(got.kl_k3) == pytest.approx(kl, abs=1e-4)


@pytest.mark.parametrize("clip", [0.2, None])
def test_value_loss_equals_the_loop(clip: float | None) -> None:
    new, old, returns, mask = batch(7)
    total = 0.0
    for row in range(6):
        for t in range(5):
            if mask[row, t]:
                value, before, target = float(new[row, t]), float(old[row, t]), float(returns[row, t])
                error = (value - target) ** 2
                if clip is not None:
                    error = max(error, (before + min(max(value - before, -clip), clip) - target) ** 2)
                total += 0.5 * error
    assert float(clipped_value_loss(new, old, returns, mask, clip=clip).loss) == pytest.approx(
        total, abs=1e-4
    )


def test_gradient_is_the_policy_gradient_at_the_first_update() -> None:
    """With ratio 1 everywhere the gradient is minus the advantage, and padding gets none."""
    new, _, advantages, mask = batch(1)
    logprobs = new.clone().requires_grad_()
    clipped_policy_loss(logprobs, new, advantages, mask, clip=0.2).loss.backward()
    assert logprobs.grad is not None
    assert torch.allclose(logprobs.grad, -advantages * mask, atol=1e-6)


def test_clipped_tokens_pass_no_gradient() -> None:
    logprobs = torch.tensor([[1.0, -1.0]], requires_grad=True)
    loss = clipped_policy_loss(
        logprobs, torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]), torch.ones(1, 2), clip=0.2
    )
    loss.loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[0.0, 0.0]]
    assert int(loss.clipped) == 2


def test_garbage_on_padding_cannot_poison_the_loss() -> None:
    new, old, advantages, mask = batch(2)
    dirty = torch.where(mask.bool(), new, torch.tensor(1e4))
    clean = clipped_policy_loss(new, old, advantages * mask, mask, clip=0.2)
    assert float(clipped_policy_loss(dirty, old, advantages * mask, mask, clip=0.2).loss) == float(clean.loss)


def test_sums_of_parts_equal_the_sum_of_the_whole() -> None:
    new, old, advantages, mask = batch(4)
    whole = clipped_policy_loss(new, old, advantages, mask, clip=0.2).loss
    parts = [
        clipped_policy_loss(*(x[i : i + 1] for x in (new, old, advantages, mask)), clip=0.2) for i in range(6)
    ]
    assert float(sum(part.loss for part in parts)) == pytest.approx(float(whole), abs=1e-5)


def test_explained_variance() -> None:
    one = torch.ones(())
    assert explained_variance(one * 4, one * 0.25, one) == 0.75
    assert explained_variance(one * 4, one, one * 0) == 0.0
    assert explained_variance(one * 0, one, one) == 0.0
