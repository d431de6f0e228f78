"""Diversity against plain readings of the papers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from toolkit.errors import DataError
from toolkit.metrics import Cider, DocumentFrequencies
from toolkit.metrics.diversity import distinct_n, score_diversity, self_cider

CORPUS = {
    1: ["a dog runs on the grass", "a cat sleeps on a couch"],
    2: ["two red buses drive past a tree", "a man eats a pizza in a kitchen"],
    3: ["a dog and a cat", "people stand near a bus"],
}
TABLE = DocumentFrequencies.from_references(CORPUS)


def plain_self_cider(captions):
    """The kernel one pair at a time, and its eigenvalues."""
    kernel = [[Cider({0: [b]}, TABLE).score([0], [a])[0] / 10 for b in captions] for a in captions]
    roots = np.sqrt(np.clip(np.linalg.eigvalsh(np.asarray(kernel)), 0, None))
    return -math.log(roots[-1] / roots.sum()) / math.log(len(captions))


def test_self_cider_is_0_for_equal_and_1_for_unrelated_captions():
    assert self_cider(["a red dog"] * 5, TABLE) == pytest.approx(0.0, abs=1e-6)
    apart = ["dog runs on grass", "two red buses drive", "man eats pizza kitchen"]
    assert self_cider(apart, TABLE) == pytest.approx(1.0, abs=1e-9)


def test_self_cider_equals_the_kernel_of_single_pairs():
    captions = [
        "a dog runs on the grass",
        "a dog and a cat on the grass",
        "two red buses",
        "a dog runs on a couch",
    ]
    value = self_cider(captions, TABLE)
    assert value == pytest.approx(plain_self_cider(captions), abs=1e-9)
    assert 0 < value < 1
    # Images do not disturb each other.
    both = score_diversity({"x": captions, "y": ["a dog runs", "a cat sleeps"]}, frequencies=TABLE)
    other = self_cider(["a dog runs", "a cat sleeps"], TABLE)
    assert both["self_cider"] == pytest.approx((value + other) / 2)


def test_distinct_n_counts_over_all_captions():
    captions = [["a", "dog", "a", "dog"], ["a", "cat"], []]
    assert distinct_n(captions, 1) == pytest.approx(3 / 6)
    assert distinct_n(captions, 2) == pytest.approx(3 / 4)
    assert distinct_n([[]], 1) == 0.0


def test_scores_of_a_greedy_system():
    scores = score_diversity(
        {1: ["A dog on the."], 2: ["a dog on the"], 3: ["a cat in a tree."], 4: [""]},
        training=["A dog on the!"],
    )
    assert scores["num_captions"] == 4
    assert scores["vocabulary"] == 7
    assert scores["unique"] == pytest.approx(3 / 4)
    assert scores["bad_endings"] == pytest.approx(2 / 4)
    assert scores["novel"] == pytest.approx(2 / 4)
    assert "self_cider" not in scores
    assert "image_distinct_1" not in scores


def test_captions_without_weight_have_no_diversity():
    assert score_diversity({1: ["", "!"], 2: ["", ""]})["self_cider"] == 0.0


def test_wrong_input_is_named():
    with pytest.raises(DataError, match="no captions"):
        score_diversity({})
    with pytest.raises(DataError, match="image 7"):
        score_diversity({7: []})
    with pytest.raises(DataError, match="at least two"):
        self_cider(["a"], TABLE)
