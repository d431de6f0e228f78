"""Advantages against loops written from the papers, a row and a token at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from toolkit.rl.advantages import gae, masked_moments, shaped_rewards, whiten


def ragged(seed: int, rows: int = 5, tokens: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Random rewards and values ``(B, T)`` and masks of different lengths: one full, one of one token."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [tokens, 1, *torch.randint(1, tokens + 1, (rows - 2,), generator=generator).tolist()]
    mask = torch.zeros(rows, tokens)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1.0
    return (
        torch.randn(rows, tokens, generator=generator),
        torch.randn(rows, tokens, generator=generator),
        mask,
    )


def naive_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """Equation 16 of Schulman et al. 2016 as a double sum over one row."""
    length = len(rewards)
    following = [*values[1:], 0.0]
    deltas = [rewards[t] + gamma * following[t] - values[t] for t in range(length)]
    return [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length)) for t in range(length)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (1.0, 0.0)])
def test_gae_equals_the_double_sum(seed: int, gamma: float, lam: float) -> None:
    rewards, values, mask = ragged(seed)
    advantages, returns = gae(rewards * mask, values, mask, gamma=gamma, lam=lam)
    for row in range(len(mask)):
        length = int(mask[row].sum())
        expected = naive_gae(rewards[row, :length].tolist(), values[row, :length].tolist(), gamma, lam)
        assert advantages[row, :length].tolist() == pytest.approx(expected, abs=1e-5)
        assert returns[row, :length].tolist() == pytest.approx(
            [a + float(v) for a, v in zip(expected, values[row, :length], strict=True)], abs=1e-5
        )
    assert (advantages * (1 - mask)).abs().max() == 0
    assert (returns * (1 - mask)).abs().max() == 0


def test_gae_of_a_row_does_not_depend_on_its_padding() -> None:
    rewards, values, mask = ragged(3)
    wide = [torch.nn.functional.pad(part, (0, 4), value=9.0) for part in (rewards * mask, values)]
    wide_mask = torch.nn.functional.pad(mask, (0, 4))
    narrow, _ = gae(rewards * mask, values, mask, gamma=0.99, lam=0.9)
    padded, _ = gae(wide[0] * wide_mask, wide[1], wide_mask, gamma=0.99, lam=0.9)
    assert torch.equal(padded[:, : mask.shape[1]], narrow)


def test_shaped_rewards_put_the_score_on_the_last_token() -> None:
    _, kl, mask = ragged(1)
    scores = torch.arange(1.0, 6.0)
    rewards = shaped_rewards(scores, kl, mask, 0.3)
    for row in range(5):
        length = int(mask[row].sum())
        expected = [-0.3 * float(kl[row, t]) for t in range(length)]
        expected[-1] += float(scores[row])
        assert rewards[row, :length].tolist() == pytest.approx(expected, abs=1e-6)
        assert rewards[row, length:].abs().sum() == 0


def test_a_row_of_padding_alone_gets_nothing() -> None:
    mask = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    rewards = shaped_rewards(torch.tensor([5.0, 2.0]), torch.ones(2, 2), mask, 0.1)
    advantages, returns = gae(rewards, torch.ones(2, 2), mask, gamma=1.0, lam=0.95)
    assert rewards[0].tolist() == [0.0, 0.0]
    assert advantages[0].tolist() == returns[0].tolist() == [0.0, 0.0]
    assert torch.isfinite(whiten(advantages, mask)).all()


def test_whitening_equals_the_flat_computation() -> None:
    values, _, mask = ragged(2)
    flat = [float(v) for v, m in zip(values.flatten(), mask.flatten(), strict=True) if m]
    mean = sum(flat) / len(flat)
    variance = sum((v - mean) ** 2 for v in flat) / len(flat)
    expected = (values - mean) / math.sqrt(variance + 1e-8) * mask
    assert torch.allclose(whiten(values, mask), expected, atol=1e-6)


def test_whitening_of_two_halves_equals_the_whole() -> None:
    """Two processes that sum their moments get what one process gets."""
    values, _, mask = ragged(4, rows=6)
    whole = whiten(values, mask)
    halves = [(values[:3], mask[:3]), (values[3:], mask[3:])]
    sums = torch.stack([torch.stack([m.double().sum(), (v.double() * m).sum()]) for v, m in halves]).sum(0)
    mean = sums[1] / sums[0]
    squares = sum(((v.double() - mean).square() * m).sum() for v, m in halves)
    for index, (v, m) in enumerate(halves):
        totals = iter([sums, squares])
        got = whiten(v, m, reduce=lambda _, totals=totals: next(totals))  # type: ignore[misc]
        assert torch.equal(got, whole[3 * index : 3 * index + 3])


def test_equal_advantages_become_zero() -> None:
    mask = torch.ones(2, 3)
    assert whiten(torch.full((2, 3), 0.7), mask).abs().max() < 1e-6


def test_moments_of_nothing_are_zero() -> None:
    count, mean, variance = masked_moments(torch.ones(2, 2), torch.zeros(2, 2))
    assert (float(count), float(mean), float(variance)) == (0.0, 0.0, 0.0)
