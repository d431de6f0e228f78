"""Held-out scores against the loop: raw means, fixed standardisation, weights without schedules."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from toolkit.config.schema import RewardTerm
from toolkit.records import PromptRow, image_prompt
from toolkit.rewards.base import RewardBatch, RewardOutput
from toolkit.rewards.composite import CompositeReward, CompositeTerm
from toolkit.rewards.held_out import held_out_scores


class Numbers:
    """Reads the score out of the completion; "?" fails."""

    scale = "any"
    background = False

    def __init__(self, name: str, factor: float, *, penalty: bool = False) -> None:
        self.name, self.factor, self.may_be_constant = name, factor, penalty

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        scores = [float("nan") if text == "?" else self.factor * float(text) for text in batch.completions]
        return RewardOutput(np.asarray(scores, dtype=np.float64))


def batch_of(texts: list[str], tasks: list[str]) -> RewardBatch:
    rows = [
        PromptRow(
            sample_id=str(i), task=task, prompt=image_prompt("?"), images=(b"",), image_id=i,
            references=("a",) if task == "caption" else (), answers=("a",) if task == "vqa" else (),
        )
        for i, task in enumerate(tasks)
    ]  # fmt: skip
    return RewardBatch(rows=rows, completions=texts, ended=[True] * len(rows), num_tokens=[1] * len(rows))


def composite() -> CompositeReward:
    rising = RewardTerm(term="a", weight=2.0, normalise="frozen", schedule="linear_up")
    return CompositeReward(
        [
            CompositeTerm("a", Numbers("a", 1.0), rising),
            CompositeTerm("b", Numbers("b", 3.0), RewardTerm(term="b", weight=0.5, tasks=["vqa"])),
            CompositeTerm("watched", Numbers("watched", -1.0), RewardTerm(term="watched", weight=0.0)),
            CompositeTerm("p", Numbers("p", 1.0, penalty=True), RewardTerm(term="p", weight=1.0)),
        ]
    )  # fmt: skip


TASKS = ["caption", "vqa", "caption", "vqa", "caption", "vqa"]


def test_the_score_is_the_loop() -> None:
    reward = composite()
    start = [1.0, 5.0, 2.0, 9.0, 4.0, 8.0]
    reward.calibrate(batch_of([str(value) for value in start], TASKS))
    texts = ["3", "7", "6", "2", "1", "4"]
    found = held_out_scores(reward, batch_of(texts, TASKS))
    totals, standardised = [], []
    for text, task in zip(texts, TASKS, strict=True):
        same = [value for value, other in zip(start, TASKS, strict=True) if other == task]
        z = (float(text) - statistics.mean(same)) / statistics.stdev(same)
        standardised.append(z)
        totals.append(2.0 * z + (1.5 * float(text) if task == "vqa" else 0.0) + float(text))
    assert found.numbers["score"] == pytest.approx(statistics.mean(totals))
    assert found.numbers["a"] == pytest.approx(23 / 6)
    assert found.numbers["b"] == pytest.approx(3 * 13 / 3)
    mean, error = found.standardised["a"]
    assert mean == pytest.approx(statistics.mean(standardised))
    assert error == pytest.approx(statistics.stdev(standardised) / 6**0.5)
    assert found.standardised["watched"][0] == pytest.approx(-mean)
    trained_on = reward(batch_of(texts, TASKS)).parts[
        "total/calibrated"
    ]  # the loop's, of the same completions
    assert trained_on == pytest.approx(totals)
    assert "p" not in found.standardised


def test_a_failed_row_is_left_out_and_the_statistics_survive_a_checkpoint() -> None:
    reward, other = composite(), composite()
    reward.calibrate(batch_of(["1", "5", "2", "9", "4", "8"], TASKS))
    other.load_state_dict(reward.state_dict())
    texts = ["3", "?", "6", "2", "1", "4"]
    found, again = (held_out_scores(item, batch_of(texts, TASKS)) for item in (reward, other))
    assert found.numbers["a"] == pytest.approx(16 / 5)
    assert np.isfinite(found.numbers["score"])
    assert found == again
    part = reward(batch_of(texts, TASKS)).parts["total/calibrated"]
    assert np.isnan(part).tolist() == [text == "?" for text in texts]


def test_without_a_calibration_there_is_no_score() -> None:
    found = held_out_scores(composite(), batch_of(["1", "2"], ["caption", "vqa"]))
    assert "score" not in found.numbers
    assert found.standardised == {}
    assert found.numbers["a"] == 1.5


@pytest.mark.parametrize("normalise", ["group", "running"])
def test_on_the_scale_of_the_calibration_a_reward_is_seen_to_rise(normalise: str) -> None:
    """Its own mean is not: it stays at 0."""
    spec = RewardTerm.model_validate({"term": "a", "normalise": normalise})
    reward = CompositeReward([CompositeTerm("a", Numbers("a", 1.0), spec)])
    reward.calibrate(batch_of(["1", "5", "2", "9"], ["caption"] * 4))
    means = []
    for better in range(20):
        batch = batch_of([str(better + number) for number in (1, 5, 2, 9)], ["caption"] * 4)
        batch = RewardBatch([batch.rows[0]] * 4, batch.completions, batch.ended, batch.num_tokens)
        means.append(reward(batch, update=True))
    assert abs(float(means[-1].scores.mean())) < 1.5
    rise = means[-1].parts["total/calibrated"].mean() - means[0].parts["total/calibrated"].mean()
    assert rise == pytest.approx(19 / statistics.stdev([1, 5, 2, 9]))


def test_whether_there_is_a_sum_does_not_depend_on_the_batch() -> None:
    """A process whose rows are of a task that was not calibrated sends as many numbers as the others."""
    spec = RewardTerm.model_validate({"term": "a", "normalise": "none", "weight": 2.0})
    other = RewardTerm.model_validate({"term": "b", "normalise": "frozen", "tasks": ["caption"]})
    reward = CompositeReward(
        [CompositeTerm("a", Numbers("a", 1.0), spec), CompositeTerm("b", Numbers("b", 1.0), other)]
    )
    reward.calibrate(batch_of(["1", "5", "2", "9"], ["caption"] * 4))
    parts = [reward(batch_of(["3", "4"], tasks)).parts for tasks in (["caption"] * 2, ["caption", "vqa"])]
    assert parts[0].keys() == parts[1].keys()
    assert np.isfinite(parts[0]["total/calibrated"]).all()
    # Raw terms need no calibration of the question; one that does would leave a hole in the row, not in the names.
    assert parts[1]["total/calibrated"].tolist() == [parts[0]["total/calibrated"][0], 8.0]
    standardised = CompositeReward(
        [CompositeTerm("a", Numbers("a", 1.0), RewardTerm(term="a", normalise="running"))]
    )
    standardised.calibrate(batch_of(["1", "5", "2", "9"], ["caption"] * 4))
    part = standardised(batch_of(["3", "4"], ["caption", "vqa"]), update=True).parts["total/calibrated"]
    assert np.isnan(part).tolist() == [False, True]
