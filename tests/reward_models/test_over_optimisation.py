"""Best-of-n: the estimator against all subsets, its curve, and decoding with a real policy and reward."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models.best_of_n import best_of_n, measure_best_of_n
from reward_models.over_optimisation import (
    agreement_within_prompts,
    best_of_n_curve,
    expected_of_best,
    kl_of_best,
)
from reward_models.scorer import LearnedReward
from toolkit.config.schema import GenerationSpec, ModelSpec
from toolkit.errors import RunFailed
from toolkit.models.loading import load_vlm
from toolkit.records import PromptRow, image_prompt


def naive(proxy, criterion, n):
    """Every subset: the mean criterion of its best completions."""
    values = []
    for subset in itertools.combinations(range(len(proxy)), n):
        top = max(proxy[i] for i in subset)
        values.append(np.mean([criterion[i] for i in subset if proxy[i] == top]))
    return float(np.mean(values))


@given(
    st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=6, unique_by=lambda p: p[0]),
    st.data(),
)
def test_the_estimator_is_the_mean_over_all_subsets(pairs, data):
    proxy, criterion = np.array(pairs).T
    n = data.draw(st.integers(1, len(pairs)))
    found = expected_of_best(proxy[None], criterion[None], n)
    assert found[0] == pytest.approx(naive(proxy, criterion, n), abs=1e-9)


def test_equal_proxies_share_and_a_constant_one_is_the_plain_mean():
    criterion = np.array([[1.0, 5.0, 9.0]])
    assert expected_of_best(np.zeros((1, 3)), criterion, 3)[0] == pytest.approx(5.0)
    assert expected_of_best(np.array([[1.0, 2.0, 2.0]]), criterion, 3)[0] == pytest.approx(7.0)


def test_sizes_out_of_range_are_refused():
    for n in (0, 4):
        with pytest.raises(ValueError, match="n of 1 to N"):
            expected_of_best(np.zeros((2, 3)), np.zeros((2, 3)), n)


def test_a_good_proxy_rises_and_an_exploitable_one_turns():
    rng = np.random.default_rng(0)
    worth = rng.normal(size=(400, 16))
    bad = worth - 6.0 * (worth > 1.5)  # the best ones by the flawed proxy are the worst by the criterion
    curve = best_of_n_curve({"good": worth + 0.3 * rng.normal(size=worth.shape), "bad": -bad}, worth)
    assert curve["n"] == [1, 2, 4, 8, 16]
    assert curve["kl"][-1] == kl_of_best(16) == pytest.approx(math.log(16) - 15 / 16)
    good, bound = ([point["mean"] for point in curve["curves"][name]] for name in ("good", "best possible"))
    assert good == sorted(good)
    assert good[0] == pytest.approx(bound[0])
    assert all(a <= b for a, b in zip(good, bound, strict=True))
    assert curve["curves"]["bad"][-1]["high"] < good[-1]
    assert curve["differences"]["bad − good"]["high"] < 0


def test_agreement_leaves_out_constant_prompts():
    scores = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [4.0, 4.0, 4.0]])
    other = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    assert agreement_within_prompts(scores, other) == {"tau": 0.0, "prompts": 2.0}


@pytest.fixture
def rows(pictures):
    return [
        PromptRow(
            sample_id=n, task="caption", prompt=image_prompt("Describe the image."), images=(p,), image_id=n
        )
        for n, p in pictures.items()
    ]


def test_decoding_keeps_what_the_reward_likes_best(bases, rows, saved_reward, tmp_path):
    vlm = load_vlm(ModelSpec(id=str(bases["llava"])), trainable=False)
    reward = LearnedReward.load(saved_reward)
    options = {"generation": GenerationSpec(max_new_tokens=6), "seed": 1, "file": tmp_path / "samples.jsonl"}
    best = best_of_n(vlm, rows, reward, n=4, **options)
    again = best_of_n(vlm, rows, reward, n=4, **options)
    assert best == again

    lines = [
        texts for line in (tmp_path / "samples.jsonl").read_text().splitlines() for texts in json.loads(line)
    ]
    for row, texts, kept in zip(rows, lines, best, strict=True):
        scores = reward.score([row.prompt] * 4, [row.images] * 4, texts)
        assert kept == texts[int(scores.argmax())]


def test_the_measure_compares_with_other_scores_and_stops_on_nan(rows, saved_reward):
    reward = LearnedReward.load(saved_reward)
    texts = [["red", "a red picture", "green and blue", "a a a a"]] * len(rows)

    def by_words(_row, several):
        return [float(len(text.split())) for text in several]

    found = measure_best_of_n(
        reward, rows, texts, by_words, {"negative": lambda r, t: [-s for s in by_words(r, t)]}
    )
    agreement = found["agreement"]
    assert agreement["criterion"] == agreement["words"]
    assert agreement["negative"]["tau"] == pytest.approx(-agreement["words"]["tau"])
    assert list(found["curves"]) == ["learned", "best possible"]
    reward.model.head.linear.bias.data.fill_(float("nan"))
    with pytest.raises(RunFailed, match="16 of 16 scores"):
        measure_best_of_n(reward, rows, texts, by_words, {})
