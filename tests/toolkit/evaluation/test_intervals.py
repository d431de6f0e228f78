"""Bootstrap intervals: paired draws, coverage, corpus statistics and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.evaluation.intervals import (
    Draws,
    bootstrap,
    interval,
    means,
    p_value,
    paired_difference,
    paired_intervals,
    pooled_mean,
)


def test_the_mean_is_the_score_on_all_units() -> None:
    draws = bootstrap(means({"cider": [1.0, 2.0, 6.0]}), units=3, resamples=50)
    assert draws.point == {"cider": 3.0}
    assert draws.draws["cider"].shape == (50,)


def test_same_seed_gives_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(1).normal(size=200)
    first, again, other = (
        interval(bootstrap(means({"x": values}), units=200, resamples=200, seed=seed), "x")
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_a_constant_shift_has_an_interval_without_width() -> None:
    values = np.random.default_rng(0).normal(size=100)
    result = paired_intervals(means({"x": values + 0.5}), means({"x": values}), units=100, resamples=100)["x"]
    assert result.low == pytest.approx(0.5)
    assert result.high == pytest.approx(0.5)
    assert result.excludes_zero


def test_pairing_is_narrower_than_two_independent_intervals() -> None:
    generator = np.random.default_rng(3)
    shared = generator.normal(size=400)
    a, b = shared + 0.1 * generator.normal(size=400), shared + 0.1 * generator.normal(size=400)
    paired = paired_intervals(means({"x": a}), means({"x": b}), units=400, resamples=300)["x"]
    alone = interval(bootstrap(means({"x": a}), units=400, resamples=300), "x")
    assert paired.high - paired.low < 0.3 * (alone.high - alone.low)


def test_the_95_percent_interval_covers_the_truth_about_95_times_in_100() -> None:
    generator = np.random.default_rng(7)
    covered = 0
    for trial in range(200):
        sample = generator.exponential(size=80)
        found = interval(bootstrap(means({"x": sample}), units=80, resamples=200, seed=trial), "x")
        covered += found.low <= 1.0 <= found.high
    assert 0.86 <= covered / 200 <= 0.99


def test_pooled_mean_weighs_every_question_alike() -> None:
    statistic = pooled_mean("accuracy", [[100.0], [0.0, 0.0, 50.0]])
    assert statistic(np.arange(2)) == {"accuracy": 37.5}
    assert statistic(np.array([0, 0])) == {"accuracy": 100.0}


def test_a_corpus_ratio_is_recomputed_on_each_resample() -> None:
    numerators, denominators = np.array([1.0, 9.0, 2.0]), np.array([10.0, 10.0, 2.0])

    def ratio(indices: np.ndarray) -> dict[str, float]:
        return {"r": float(numerators[indices].sum() / denominators[indices].sum())}

    draws = bootstrap(ratio, units=3, resamples=500)
    assert draws.point["r"] == pytest.approx(12 / 22)
    assert draws.draws["r"].min() == pytest.approx(0.1)
    assert draws.draws["r"].max() == pytest.approx(1.0)


def test_no_units_and_unpaired_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one unit"):
        bootstrap(means({"x": []}), units=0)
    a = bootstrap(means({"x": [1.0, 2.0]}), units=2, resamples=10)
    b = bootstrap(means({"x": [1.0, 2.0]}), units=2, resamples=11)
    with pytest.raises(ValueError, match="not pairs"):
        paired_difference(a, b, "x")


def test_p_values() -> None:
    point = {"x": 0.0}
    zeros = Draws(point, {"x": np.zeros(99)})
    assert p_value(zeros, zeros, "x") == 1.0
    ahead = Draws(point, {"x": np.ones(99)})
    assert p_value(ahead, zeros, "x") == p_value(zeros, ahead, "x") == pytest.approx(0.02)
    mixed = Draws(point, {"x": np.r_[-np.ones(9), np.ones(90)]})
    assert p_value(mixed, zeros, "x") == pytest.approx(0.2)
