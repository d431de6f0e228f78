"""Kendall's tau against pairs counted one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import UsageError
from toolkit.metrics.correlation import kendall_tau


def counted(x, y):
    n = len(x)
    pairs = [(i, j) for i in range(n) for j in range(i)]
    surplus = sum(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in pairs)
    return surplus, [sum(column[i] != column[j] for i, j in pairs) for column in (x, y)]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=2, max_size=25))
@settings(max_examples=300, deadline=None)
def test_equals_counting_pairs(rows):
    x, y = [a for a, _ in rows], [b for _, b in rows]
    surplus, untied = counted(x, y)
    levels = min(len(set(x)), len(set(y)))
    tau_b, tau_c = kendall_tau(x, y, "b"), kendall_tau(x, y, "c")
    if not all(untied):
        assert math.isnan(tau_b)
        assert math.isnan(tau_c)
        return
    assert tau_b == pytest.approx(surplus / math.sqrt(untied[0] * untied[1]))
    assert tau_c == pytest.approx(2 * surplus / (len(x) ** 2 * (levels - 1) / levels))
    assert kendall_tau(y, x, "c") == pytest.approx(tau_c)


def test_known_values():
    """Stuart's variant of a 2 × 2 table in perfect order is 1; of opposite order -1."""
    assert kendall_tau([1, 1, 2, 2], [5, 5, 9, 9], "c") == pytest.approx(1.0)
    assert kendall_tau([1, 2, 3], [3, 2, 1], "b") == pytest.approx(-1.0)


def test_many_rows_are_quick():
    generator = np.random.default_rng(0)
    judgements = generator.integers(1, 5, size=100_000).astype(float)
    value = kendall_tau(judgements + generator.normal(size=100_000), judgements, "c")
    assert 0.5 < value < 0.9


def test_wrong_input():
    with pytest.raises(UsageError, match="tau-a"):
        kendall_tau([1, 2], [1, 2], "a")
    with pytest.raises(UsageError, match="one length"):
        kendall_tau([1, 2], [1], "b")
    with pytest.raises(UsageError, match="no numbers"):
        kendall_tau([1, math.nan], [1, 2])
