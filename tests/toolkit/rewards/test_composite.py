"""The composite: weights, statistics a task, failures, schedules, and the verdict on terms that teach nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from toolkit.config.schema import RewardTerm
from toolkit.errors import CheckpointError, RunFailed
from toolkit.rewards.base import RewardBatch, RewardOutput
from toolkit.rewards.composite import CompositeReward, CompositeTerm

Batches = Callable[..., RewardBatch]


class Lookup:
    """A reward that reads its scores from a table by completion; None means not applicable."""

    scale = "as the table says"

    def __init__(self, name: str, table: Mapping[str, float | None], *, penalty: bool = False) -> None:
        self.name, self.table, self.may_be_constant = name, table, penalty
        self.background = True

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        values = [self.table[text] for text in batch.completions]
        return RewardOutput(
            np.array([np.nan if value is None else value for value in values], dtype=np.float64),
            applicable=np.array([value is not None for value in values]),
        )


def term(reward: Lookup, **spec: object) -> CompositeTerm:
    return CompositeTerm(reward.name, reward, RewardTerm.model_validate({"term": reward.name, **spec}))


def test_sum_of_clipped_weighted_terms_and_its_parts(batch_of: Batches) -> None:
    first = term(Lookup("first", {"x": 3.0, "y": -1.0}), weight=2.0, clip=(0.0, 2.0))
    second = term(Lookup("second", {"x": 0.5, "y": 0.25}), weight=-1.0)
    output = CompositeReward([first, second])(batch_of(["x", "y"]))
    assert output.scores.tolist() == [3.5, -0.25]
    assert output.parts["first"].tolist() == [3.0, -1.0]
    assert output.parts["first/normalised"].tolist() == [2.0, 0.0]
    assert output.parts["first/weighted"].tolist() == [4.0, 0.0]
    assert output.parts["second/weighted"].tolist() == [-0.5, -0.25]
    assert not output.failed.any()


def test_failed_is_not_zero_and_not_applicable_is_not_failed(batch_of: Batches) -> None:
    first = term(Lookup("first", {"ok": 1.0, "none": None, "nan": np.nan}))
    second = term(Lookup("second", {"ok": 1.0, "none": 2.0, "nan": 1.0}))
    output = CompositeReward([first, second])(batch_of(["ok", "none", "nan"]))
    assert output.scores[:2].tolist() == [2.0, 2.0]
    assert output.failed.tolist() == [False, False, True]


def test_a_row_without_any_term_is_not_applicable(batch_of: Batches) -> None:
    only = term(Lookup("only", {"x": 1.0}), tasks=["vqa"])
    output = CompositeReward([only])(batch_of(["x", "x"], tasks=["vqa", "caption"]))
    assert output.applies.tolist() == [True, False]
    assert not output.failed.any()


def test_group_normalisation_by_sample(batch_of: Batches) -> None:
    reward = CompositeReward([term(Lookup("r", {"a": 1.0, "b": 3.0, "c": 7.0}), normalise="group")])
    output = reward(batch_of(["a", "c", "b", "c"], sample_ids=["p", "q", "p", "q"]))
    root = 1 / np.sqrt(2)
    assert output.scores.tolist() == pytest.approx([-root, 0.0, root, 0.0])
    lone = reward(batch_of(["a"]))
    assert lone.scores.tolist() == [0.0]


def test_frozen_statistics_are_a_task_each(batch_of: Batches) -> None:
    table = {"a": 1.0, "b": 3.0, "c": 10.0, "d": 30.0}
    reward = CompositeReward([term(Lookup("r", table), normalise="frozen")])
    sample = batch_of(["a", "b", "c", "d"], tasks=["caption", "caption", "vqa", "vqa"])
    with pytest.raises(RunFailed, match="no frozen statistics"):
        reward(sample)
    report = reward.calibrate(sample)
    assert report["r/caption"]["mean"] == 2.0
    assert report["r/vqa"]["std"] == pytest.approx(np.std([10, 30], ddof=1))
    expected = [-1 / np.sqrt(2), 1 / np.sqrt(2)] * 2
    assert reward(sample).scores.tolist() == pytest.approx(expected)
    assert reward(batch_of(["d"], tasks=["vqa"]), update=True).scores.tolist() == pytest.approx(expected[3:])


def test_running_statistics_equal_those_of_all_values_and_resume(batch_of: Batches) -> None:
    values = np.random.default_rng(0).normal(5, 3, 40)
    table = {str(index): float(value) for index, value in enumerate(values)}
    spec = {"normalise": "running"}
    reward = CompositeReward([term(Lookup("r", table), **spec)])
    for start in range(0, 40, 10):
        if start == 20:
            again = CompositeReward([term(Lookup("r", table), **spec)])
            again.load_state_dict(reward.state_dict())
            reward = again
        output = reward(batch_of([str(i) for i in range(start, start + 10)]), update=True)
    expected = (values[30:] - values.mean()) / values.std(ddof=1)
    assert output.scores.tolist() == pytest.approx(expected.tolist())


def test_running_statistics_sum_over_processes(batch_of: Batches) -> None:
    """Two processes that exchange their sums hold the statistics of one process that saw all rows."""
    table = {str(index): float(index * index) for index in range(8)}
    names = [str(index) for index in range(8)]
    exchanged: list[np.ndarray] = []
    for half in (names[:4], names[4:]):
        probe = CompositeReward(
            [term(Lookup("r", table), normalise="running")],
            all_reduce=lambda sums: (exchanged.append(sums.copy()), sums)[1],
        )
        probe(batch_of(half), update=True)
    total = exchanged[0] + exchanged[1]
    split = CompositeReward([term(Lookup("r", table), normalise="running")], all_reduce=lambda sums: total)
    whole = CompositeReward([term(Lookup("r", table), normalise="running")])
    whole_scores = whole(batch_of(names), update=True).scores
    assert split(batch_of(names[:4]), update=True).scores.tolist() == pytest.approx(whole_scores[:4].tolist())


def test_schedules_follow_the_progress(batch_of: Batches) -> None:
    up = term(Lookup("up", {"x": 1.0}), schedule="linear_up", weight=4.0)
    down = term(Lookup("down", {"x": 1.0}), schedule="linear_down", weight=10.0)
    reward = CompositeReward([up, down])
    reward.set_progress(0.25)
    assert reward(batch_of(["x"])).scores.tolist() == [1.0 + 7.5]


def test_a_constant_term_stops_the_run_but_a_penalty_may_be_zero(batch_of: Batches) -> None:
    texts = ["x"] * 10
    with pytest.raises(RunFailed, match=r"cider is 0\.000 on all 10 caption samples"):
        CompositeReward([term(Lookup("cider", {"x": 0.0}))]).calibrate(batch_of(texts))
    CompositeReward([term(Lookup("length", {"x": 0.0}, penalty=True))]).calibrate(batch_of(texts))


@pytest.mark.parametrize("spec", [{"weight": 0.0}, {"schedule": "linear_up"}])
def test_a_term_that_weighs_nothing_now_masks_no_row_where_it_fails(
    batch_of: Batches, spec: dict[str, object]
) -> None:
    watched = term(Lookup("watched", {"x": float("nan"), "y": 1.0}), **spec)
    paying = term(Lookup("paying", {"x": 2.0, "y": 3.0}))
    output = CompositeReward([watched, paying])(batch_of(["x", "y"]))
    assert output.scores.tolist() == [2.0, 3.0]
    assert not output.failed.any()
    assert np.isnan(output.parts["watched"]).tolist() == [True, False]


def test_a_constant_term_that_is_only_watched_is_said_and_stops_nothing(
    batch_of: Batches, caplog: pytest.LogCaptureFixture
) -> None:
    flat = term(Lookup("flat", dict.fromkeys("abcdefghij", 0.0)), weight=0.0)
    moving = term(Lookup("moving", {text: float(i) for i, text in enumerate("abcdefghij")}))
    report = CompositeReward([flat, moving]).calibrate(batch_of(list("abcdefghij")))
    assert report["flat/caption"]["std"] == 0.0
    assert "only watched" in caplog.text


def test_a_term_that_fails_or_never_applies_stops_the_run(batch_of: Batches) -> None:
    with pytest.raises(RunFailed, match="applies to none of the 2"):
        CompositeReward([term(Lookup("r", {"x": None}))]).calibrate(batch_of(["x", "x"]))
    with pytest.raises(RunFailed, match="failed on all 2 caption samples"):
        CompositeReward([term(Lookup("r", {"x": np.nan}))]).calibrate(batch_of(["x", "x"]))


class Meets(Lookup):
    """Waits for the other reward of a pair: both come to an end only where they run at the same time."""

    def __init__(self, name: str, barrier: threading.Barrier, *, background: bool) -> None:
        super().__init__(name, {"x": 1.0, "y": 2.0})
        self.barrier, self.background = barrier, background
        self.thread: threading.Thread | None = None

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        self.thread = threading.current_thread()
        self.barrier.wait(timeout=30)
        return super().__call__(batch)


@pytest.mark.parametrize("normalise", ["none", "group", "running"])
def test_a_batch_begun_gives_what_a_call_gives_to_the_last_bit(batch_of: Batches, normalise: str) -> None:
    def composite(barrier: threading.Barrier | None = None) -> CompositeReward:
        values = {"x": 0.1, "y": 0.7}
        rewards = [Lookup("away", values), Lookup("here", {"x": 3.0, "y": None})]
        rewards[1].background = False
        if barrier is not None:
            rewards += [Meets(name, barrier, background=name == "first") for name in ("first", "second")]
        return CompositeReward([term(reward, normalise=normalise, weight=0.3) for reward in rewards])

    called, begun = composite(), composite()
    for texts in (["x", "y", "x"], ["y", "y", "x"]):
        one = called(batch_of(texts), update=True)
        other = begun.finish(begun.begin(batch_of(texts)), update=True)
        assert one.scores.tobytes() == other.scores.tobytes()
        assert {k: v.tobytes() for k, v in one.parts.items()} == {
            k: v.tobytes() for k, v in other.parts.items()
        }
    assert called.state_dict() == begun.state_dict()
    both = composite(threading.Barrier(2))
    both.finish(both.begin(batch_of(["x", "y"])), update=True)
    away, here = (item.reward for item in both.terms[2:])
    assert isinstance(away, Meets)
    assert isinstance(here, Meets)
    assert here.thread is threading.main_thread()
    assert away.thread is not threading.main_thread()


def test_what_goes_wrong_in_the_background_ends_the_run(batch_of: Batches) -> None:
    composite = CompositeReward([term(Lookup("r", {}))])
    with pytest.raises(KeyError, match="x"):
        composite.finish(composite.begin(batch_of(["x"])))


def test_a_reward_that_says_nothing_of_threads_stays_in_this_one(batch_of: Batches) -> None:
    reward = Lookup("r", {"x": 1.0})
    del reward.background
    begun = CompositeReward([term(reward)]).begin(batch_of(["x"]))
    assert begun.coming == {}


@pytest.mark.parametrize("value", [0.1, 0.6, 0.7, 1.35, 3.13, 9.7, 1e4 + 0.7, -0.3])
@pytest.mark.parametrize("count", [16, 128, 1000])
def test_a_constant_is_known_as_one_whatever_its_sums_round_to(
    batch_of: Batches, value: float, count: int
) -> None:
    with pytest.raises(RunFailed, match="on all"):
        CompositeReward([term(Lookup("r", {"x": value}), normalise="frozen")]).calibrate(
            batch_of(["x"] * count)
        )


def test_state_of_another_composite_is_refused() -> None:
    state = {
        "progress": 0.0,
        "moments": {"other\tcaption": {"count": 1.0, "mean": 0.0, "squared_deviations": 0.0}},
    }
    with pytest.raises(CheckpointError, match="other"):
        CompositeReward([term(Lookup("r", {}))]).load_state_dict(state)
