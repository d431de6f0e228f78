"""Who is first, and what counts as a ratio."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def race(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import rl_race

    return rl_race


def test_the_first_evaluation_at_the_target_counts(race: ModuleType) -> None:
    points = [race.Point(float(i), 2.0 * i, 64 * i, cider) for i, cider in enumerate((3.0, 3.4, 3.2, 3.6))]
    assert race.reached(points, 3.3) is points[1]
    assert race.reached(points, 9.0) is race.NEVER
    slow, fast, never = [points[3]], [points[1]], [points[0]]
    assert race.first([[slow], [fast]], 3.3) == 1
    assert race.first([[fast], [slow]], 9.0) == 1, "nobody was there: the nearest is taken"
    assert race.first([[fast, never], [slow, slow]], 3.3) == 1, "twice there counts more than once and sooner"
    assert race.first([[fast, slow], [fast, fast]], 3.3) == 1


def test_the_better_of_theirs_by_medians_of_seeds(race: ModuleType) -> None:
    def side(*seconds: float) -> dict[int, object]:
        return {
            seed: race.Point(value, value, 1, 4.0) if math.isfinite(value) else race.NEVER
            for seed, value in enumerate(seconds)
        }

    runs = {"ours": side(10, 50, 20), "rloo": side(60, 30, 50), "grpo": side(80, math.inf, 41)}
    assert race.ratio(runs, ("rloo", "grpo"), "seconds") == 50 / 20
    assert race.ratio(runs, ("grpo",), "seconds") == 80 / 20
    runs["ours"] = side(1, math.inf, math.inf)
    assert race.ratio(runs, ("rloo", "grpo"), "seconds") is None


def test_a_completion_costs_what_the_median_run_paid_for_it(race: ModuleType) -> None:
    def side(*pairs: tuple[float, int]) -> dict[int, object]:
        runs = {seed: race.Point(seconds, seconds, count, 4.0) for seed, (seconds, count) in enumerate(pairs)}
        return {**runs, 9: race.NEVER}

    runs = {"ours": side((1, 100), (4, 200), (9, 300)), "rloo": side((6, 100)), "grpo": side((9, 100))}
    assert race.per_completion(runs, ("rloo", "grpo")) == pytest.approx(0.06 / 0.02)
    assert race.per_completion({**runs, "ours": {0: race.NEVER}}, ("rloo",)) is None
