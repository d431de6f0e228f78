"""The hidden criterion is hidden: neither CIDEr, nor length, nor the words alone rank its pairs."""

import math
import random
from collections import Counter, defaultdict

import pytest

from toolkit.data.scenes.language import references
from toolkit.data.scenes.raters import sample_pairs
from toolkit.data.scenes.sampling import sample_scenes
from toolkit.metrics import CiderD, DocumentFrequencies, tokenize


@pytest.fixture(scope="module")
def scenes():
    return list(sample_scenes(0, "train", 6000))


@pytest.fixture(scope="module")
def pairs(scenes):
    return sample_pairs(scenes, 0, flip_fraction=0.0)


def test_ten_percent_of_the_labels_are_flipped(scenes):
    flipped = [pair.flipped for pair in sample_pairs(scenes, 0)]
    assert sum(flipped) / len(flipped) == pytest.approx(0.1, abs=0.01)


def test_cider_cannot_rank_the_criterion(scenes, pairs):
    order = [pair for pair in pairs if pair.source == "order"]
    assert len(order) >= 2000
    captions = {scene.image_id: references(scene) for scene in scenes}
    scorer = CiderD(captions, DocumentFrequencies.from_references(captions))
    ids = [pair.scene.image_id for pair in order]
    gaps = scorer.score(ids, [p.chosen for p in order]) - scorer.score(ids, [p.rejected for p in order])
    right = ((gaps > 0).sum() + 0.5 * (gaps == 0).sum()) / len(gaps)
    assert 0.45 <= right <= 0.60


def test_raters_see_the_order_of_a_scene_in_two_wordings(pairs):
    order = [pair for pair in pairs if pair.source == "order"]
    wordings = Counter((pair.scene.image_id, pair.chosen, pair.rejected) for pair in order)
    assert len(wordings) == len(order)
    assert set(Counter(pair.scene.image_id for pair in order).values()) == {2}


@pytest.mark.parametrize("sign", [1, -1])
def test_length_cannot_rank_the_criterion(pairs, sign):
    order = [pair for pair in pairs if pair.source == "order"]
    gaps = [sign * (len(tokenize(p.chosen)) - len(tokenize(p.rejected))) for p in order]
    assert sum((gap > 0) + 0.5 * (gap == 0) for gap in gaps) / len(gaps) <= 0.55


def _features(pair_text: str, question: str | None) -> Counter:
    words = ["<s>", *tokenize(pair_text), "</s>"]
    grams = Counter(f"{a} {b}" for a, b in zip(words, words[1:], strict=False)) + Counter(words)
    if question:
        grams += Counter(f"{word} | {pair_text}" for word in tokenize(question))
    return grams


def test_words_alone_cannot_rank_the_pairs(pairs):
    """Logistic regression on n-grams (with the question's words), trained on three quarters of the pairs."""
    pairs = pairs.copy()
    random.Random(0).shuffle(pairs)
    cut = len(pairs) * 3 // 4
    weights: dict[str, float] = defaultdict(float)
    for epoch in range(3):
        for pair in pairs[:cut]:
            gap = _features(pair.chosen, pair.question)
            gap.subtract(_features(pair.rejected, pair.question))
            score = sum(weights[name] * value for name, value in gap.items())
            step = 0.05 / (epoch + 1) / (1 + math.exp(min(score, 50)))
            for name, value in gap.items():
                weights[name] += step * value
    right: dict[str, list[float]] = defaultdict(list)
    for pair in pairs[cut:]:
        gap = _features(pair.chosen, pair.question)
        gap.subtract(_features(pair.rejected, pair.question))
        score = sum(weights[name] * value for name, value in gap.items())
        right[pair.source].append(1.0 if score > 0 else 0.5 if score == 0 else 0.0)
    accuracy = {source: sum(values) / len(values) for source, values in right.items()}
    assert accuracy["order"] <= 0.60, accuracy
    overall = [value for values in right.values() for value in values]
    assert sum(overall) / len(overall) <= 0.60, accuracy
