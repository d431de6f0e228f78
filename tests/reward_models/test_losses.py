"""Losses against naive loops over Python floats, their limits and their gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reward_models.losses import bradley_terry, centring, pair_loss

scores = st.floats(min_value=-20, max_value=20, allow_nan=False)
pairs = st.lists(st.tuples(scores, scores, st.floats(0, 3)), min_size=1, max_size=6)


def naive(rows, smoothing, weight):
    total = 0.0
    for chosen, rejected, margin in rows:
        right = 1.0 / (1.0 + math.exp(-(chosen - rejected - margin)))
        wrong = 1.0 / (1.0 + math.exp(chosen - rejected - margin))
        total -= (1 - smoothing) * math.log(right) + smoothing * math.log(wrong)
        total += weight * (chosen + rejected) ** 2
    return total / len(rows)


@given(rows=pairs, smoothing=st.floats(0, 0.49), weight=st.floats(0, 1))
def test_pair_loss_equals_a_naive_loop(rows, smoothing, weight):
    chosen, rejected, margin = torch.tensor(rows, dtype=torch.float64).unbind(1)
    value = pair_loss(chosen, rejected, margin=margin, label_smoothing=smoothing, centring_weight=weight)
    assert value.item() == pytest.approx(naive(rows, smoothing, weight), rel=1e-9, abs=1e-9)


def test_equal_scores_cost_log_two_and_large_differences_stay_finite():
    equal = torch.zeros(2)
    assert bradley_terry(equal, equal).tolist() == pytest.approx([math.log(2)] * 2)
    huge = torch.tensor([1e4])
    assert bradley_terry(huge, -huge).item() == 0.0
    assert bradley_terry(-huge, huge).item() == pytest.approx(2e4)


def test_gradient_raises_the_chosen_score_and_centring_pulls_the_sum_to_zero():
    chosen = torch.tensor([3.0], requires_grad=True)
    rejected = torch.tensor([3.0], requires_grad=True)
    bradley_terry(chosen, rejected).sum().backward()
    assert chosen.grad.item() == pytest.approx(-0.5)
    assert rejected.grad.item() == pytest.approx(0.5)
    chosen.grad = rejected.grad = None
    centring(chosen, rejected).sum().backward()
    assert chosen.grad.item() == rejected.grad.item() == pytest.approx(12.0)


def test_smoothing_makes_overconfidence_expensive():
    confident, modest = torch.tensor([30.0]), torch.tensor([2.0])
    zero = torch.zeros(1)
    smoothed = [bradley_terry(scores, zero, label_smoothing=0.1) for scores in (confident, modest)]
    assert smoothed[0] > smoothed[1]


@pytest.mark.parametrize("smoothing", [-0.1, 0.5, 1.0])
def test_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match="label_smoothing"):
        bradley_terry(torch.zeros(1), torch.zeros(1), label_smoothing=smoothing)


def test_shapes_that_differ_are_refused_instead_of_broadcast():
    with pytest.raises(ValueError, match="one shape"):
        bradley_terry(torch.zeros(3), torch.zeros(1))
    with pytest.raises(ValueError, match="one shape"):
        bradley_terry(torch.zeros(3), torch.zeros(3), margin=torch.zeros(1))
