"""KL estimates against the exact divergence, and the adaptive controller against its formula."""

from __future__ import annotations

import pytest
import torch

from toolkit.config.schema import KlSpec
from toolkit.rl.kl import AdaptiveKl, FixedKl, k1, k3, kl_controller


def test_both_estimates_are_unbiased_and_k3_varies_less() -> None:
    generator = torch.Generator().manual_seed(0)
    policy = torch.log_softmax(torch.randn(6, generator=generator), 0)
    reference = torch.log_softmax(policy + 0.3 * torch.randn(6, generator=generator), 0)
    exact = float((policy.exp() * (policy - reference)).sum())
    draws = torch.multinomial(policy.exp(), 200_000, replacement=True, generator=generator)[None]
    mask = torch.ones_like(draws)
    first, third = (f(policy[draws], reference[draws], mask) for f in (k1, k3))
    assert float(first.mean()) == pytest.approx(exact, abs=5e-3)
    assert float(third.mean()) == pytest.approx(exact, abs=5e-3)
    assert third.min() >= -1e-6
    assert third.var() < first.var()


def test_padding_is_zero_even_where_the_log_probability_is_minus_infinity() -> None:
    logprobs = torch.tensor([[-1.0, -torch.inf]])
    mask = torch.tensor([[1.0, 0.0]])
    assert k1(logprobs, logprobs - 1, mask).tolist() == [[1.0, 0.0]]
    assert torch.isfinite(k3(logprobs, logprobs - 1, mask)).all()


def test_adaptive_controller_moves_towards_the_target() -> None:
    controller = AdaptiveKl(0.1, target_nats=6.0, horizon=1000)
    controller.update(12.0, 100)
    assert controller.coefficient == pytest.approx(0.1 * (1 + 0.2 * 100 / 1000))
    controller.update(5.4, 100)
    assert controller.coefficient == pytest.approx(0.1 * 1.02 * (1 - 0.1 * 100 / 1000))


def test_an_iteration_without_usable_completions_leaves_the_coefficient_and_none_turns_it_negative() -> None:
    controller = AdaptiveKl(0.1, target_nats=6.0, horizon=100.0)
    controller.update(float("nan"), 64)
    assert controller.coefficient == 0.1
    controller.update(0.0, 10_000)
    assert controller.coefficient == 0.0


def test_controllers_from_the_recipe_resume() -> None:
    adaptive = kl_controller(KlSpec(controller="adaptive"))
    adaptive.update(100.0, 64)
    again = kl_controller(KlSpec(controller="adaptive"))
    again.load_state_dict(adaptive.state_dict())
    assert again.coefficient == adaptive.coefficient != 0.03
    fixed = kl_controller(KlSpec())
    fixed.update(100.0, 64)
    assert isinstance(fixed, FixedKl)
    assert fixed.coefficient == 0.03
