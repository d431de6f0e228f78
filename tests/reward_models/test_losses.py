"""Losses against naive loops over Python floats, their limits and their gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reward_models.losses import bradley_terry, centring, graded, plackett_luce, rao_kupper
from reward_models.objective import PairLabels, list_loss, pair_loss
from toolkit.config.schema import RewardLossSpec

scores = st.floats(min_value=-20, max_value=20, allow_nan=False)
pairs = st.lists(st.tuples(scores, scores, st.floats(0, 3)), min_size=1, max_size=6)


def labels(**values):
    size, dtype = len(next(iter(values.values()))), torch.float64
    defaults = {
        "margin": torch.zeros(size, dtype=dtype),
        "tie": torch.zeros(size, dtype=torch.bool),
        "agreement": torch.ones(size, dtype=dtype),
        "weight": torch.ones(size, dtype=dtype),
    }
    return PairLabels(**(defaults | values))


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
    value = pair_loss(
        chosen,
        rejected,
        labels(margin=margin),
        RewardLossSpec(label_smoothing=smoothing, centring=weight),
    )
    assert value.item() == pytest.approx(naive(rows, smoothing, weight), rel=1e-9, abs=1e-9)


rated = st.lists(
    st.tuples(scores, scores, st.floats(0, 1), st.booleans(), st.floats(0.1, 3)), min_size=1, max_size=6
)


@given(rows=rated, threshold=st.floats(0.05, 3))
def test_losses_with_ties_and_shares_of_raters_equal_naive_loops(rows, threshold):
    chosen, rejected, agreement, tie, weight = torch.tensor(rows, dtype=torch.float64).unbind(1)
    said = labels(agreement=agreement, tie=tie.bool(), weight=weight)
    expected = {"bradley_terry": 0.0, "graded": 0.0, "rao_kupper": 0.0}
    theta = math.exp(threshold)
    for a, b, share, undecided, w in rows:
        good, bad = math.exp(a), math.exp(b)
        first = good / (good + bad)
        half = 0.5 if undecided else 1.0
        expected["bradley_terry"] -= w * (half * math.log(first) + (1 - half) * math.log(bad / (good + bad)))
        expected["graded"] -= w * (share * math.log(first) + (1 - share) * math.log(bad / (good + bad)))
        win = good / (good + theta * bad)
        draw = (theta**2 - 1) * good * bad / ((good + theta * bad) * (theta * good + bad))
        expected["rao_kupper"] -= w * math.log(draw if undecided else win)
    for kind, total in expected.items():
        spec = RewardLossSpec(kind=kind, centring=0, tie_threshold=threshold)
        found = pair_loss(chosen, rejected, said, spec).item()
        assert found == pytest.approx(total / len(rows), rel=1e-6, abs=1e-9), kind


def naive_plackett_luce(values, ranks):
    """Every choice one by one: exp(score) over the sum of those who are not better."""
    choices = [k for k in range(len(values)) if ranks[k] < max(ranks)]
    cost = 0.0
    for k in choices:
        rivals = [math.exp(values[j]) for j in range(len(values)) if ranks[j] >= ranks[k]]
        cost -= math.log(math.exp(values[k]) / sum(rivals))
    return cost / max(len(choices), 1)


lists = st.lists(
    st.lists(st.tuples(scores, st.integers(0, 3)), min_size=2, max_size=5), min_size=1, max_size=4
)


@given(rows=lists, weight=st.floats(0, 1))
def test_the_loss_of_rankings_equals_a_naive_loop_and_its_gradient_is_finite(rows, weight):
    most = max(map(len, rows))
    values = torch.zeros(len(rows), most, dtype=torch.float64)
    ranks = torch.full((len(rows), most), -1)
    for i, row in enumerate(rows):
        values[i, : len(row)] = torch.tensor([score for score, _ in row], dtype=torch.float64)
        ranks[i, : len(row)] = torch.tensor([rank for _, rank in row])
    values.requires_grad_()
    expected = [naive_plackett_luce(*zip(*row, strict=True)) for row in rows]
    assert plackett_luce(values, ranks).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    centred = [weight * (2 * sum(s for s, _ in row) / len(row)) ** 2 for row in rows]
    spec = RewardLossSpec(kind="plackett_luce", centring=weight)
    total = list_loss(values, ranks, torch.ones(len(rows), dtype=torch.float64), spec)
    mean = sum(map(sum, zip(expected, centred, strict=True))) / len(rows)
    assert total.item() == pytest.approx(mean, rel=1e-9, abs=1e-9)
    total.backward()
    assert values.grad.isfinite().all()
    assert (values.grad[ranks < 0] == 0).all()


def test_a_ranking_of_two_is_a_pair():
    chosen, rejected = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).unbind()
    ranks = torch.tensor([[0, 1]] * 5)
    torch.testing.assert_close(
        plackett_luce(torch.stack([chosen, rejected], 1), ranks), bradley_terry(chosen, rejected)
    )
    torch.testing.assert_close(graded(chosen, rejected, torch.ones(5)), bradley_terry(chosen, rejected))


def test_a_tie_is_likeliest_at_equal_scores_and_the_three_outcomes_sum_to_one():
    difference = torch.linspace(-3, 3, 13)
    zero = torch.zeros(13)
    yes, no = torch.ones(13, dtype=torch.bool), torch.zeros(13, dtype=torch.bool)
    draw = (-rao_kupper(difference, zero, tie=yes, threshold=0.7)).exp()
    win = (-rao_kupper(difference, zero, tie=no, threshold=0.7)).exp()
    loss = (-rao_kupper(zero, difference, tie=no, threshold=0.7)).exp()
    torch.testing.assert_close(draw + win + loss, torch.ones(13))
    assert draw.argmax() == 6


def test_wrong_shapes_and_thresholds_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        graded(torch.zeros(2), torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="above 0"):
        rao_kupper(torch.zeros(1), torch.zeros(1), tie=torch.zeros(1, dtype=torch.bool), threshold=0.0)
    with pytest.raises(ValueError, match="ranks"):
        plackett_luce(torch.zeros(2, 3), torch.zeros(2, 2))


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
