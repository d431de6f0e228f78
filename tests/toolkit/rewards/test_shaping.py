"""Shaping terms: where they are 0, where they are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from toolkit.rewards.base import RewardBatch
from toolkit.rewards.shaping import BadEndingReward, LengthReward, RepetitionReward

Batches = Callable[..., RewardBatch]


def test_length_counts_tokens_outside_the_range(batch_of: Batches) -> None:
    batch = batch_of(["a", "a b c", "a b c d e f g"])  # 2, 4 and 8 tokens with the end token
    reward = LengthReward(min_tokens=3, max_tokens=6, per_tokens=2.0)
    assert reward(batch).scores.tolist() == [-0.5, 0.0, -1.0]
    with pytest.raises(ValueError, match="min_tokens"):
        LengthReward(min_tokens=5, max_tokens=4)


def test_repetition_is_the_share_of_repeated_ngrams(batch_of: Batches) -> None:
    batch = batch_of(["a b c a b c a b c", "a b c d", "a b", ""])
    assert RepetitionReward(ngram=3)(batch).scores.tolist() == [-4 / 7, 0.0, 0.0, 0.0]
    assert RepetitionReward(ngram=1)(batch_of(["so so so so"])).scores.tolist() == [-0.75]


def test_bad_endings(batch_of: Batches) -> None:
    texts = ["a circle on a square.", "a circle on a", "a circle", "", "The Of"]
    batch = batch_of(texts, ended=[True, True, False, True, True])
    assert BadEndingReward()(batch).scores.tolist() == [0.0, -1.0, -1.0, -1.0, -1.0]


def test_an_answer_may_be_a_preposition(batch_of: Batches) -> None:
    assert not BadEndingReward()(batch_of(["on"], tasks=["vqa"])).applies.any()
