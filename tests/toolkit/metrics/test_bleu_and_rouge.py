"""BLEU and ROUGE-L where they can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import DataError, UsageError
from toolkit.metrics import Bleu, rouge_l
from toolkit.metrics.rouge import longest_common_subsequence

TOKENS = st.lists(st.sampled_from("abcd"), max_size=12)


def slow_subsequence(first, second):
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, x in enumerate(first):
        for j, y in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(TOKENS, TOKENS)
def test_longest_common_subsequence(first, second):
    assert longest_common_subsequence(first, second) == slow_subsequence(first, second)


def test_rouge_takes_precision_and_recall_from_any_reference():
    score = rouge_l("a b c d".split(), ["a b".split(), "x a b c d e f g".split()])
    precision, recall = 1.0, 1.0
    assert score == pytest.approx((1 + 1.44) * precision * recall / (recall + 1.44 * precision))
    assert rouge_l(["x"], [["y"]]) == 0.0
    assert rouge_l([], [[]]) == pytest.approx(1.0)
    assert rouge_l([], [["a"]]) == 0.0


def test_bleu_of_a_caption():
    scorer = Bleu({1: ["a dog runs fast", "a big dog"], 2: ["cat"]})
    scores = scorer.score([1, 1, 2, 1], ["a dog runs fast", "dog dog dog", "", "a dog"])
    assert scores.shape == (4, 4)
    np.testing.assert_allclose(scores[0], 1.0, rtol=1e-8)
    assert scores[1, 0] == pytest.approx(
        1 / 3, rel=1e-8
    )  # clipped to one dog; three words, as the second reference
    np.testing.assert_array_equal(scores[2], 0.0)
    assert scores[3, 0] == pytest.approx(np.exp(1 - 3 / 2), rel=1e-8)  # brevity against the nearer reference


def test_bleu_names_what_is_wrong():
    scorer = Bleu({1: ["a"]})
    with pytest.raises(DataError, match="image 2"):
        scorer.score([2], ["a"])
    with pytest.raises(UsageError):
        scorer.score([1], [])
    assert scorer.score([], []).shape == (0, 4)
