"""Simulated raters: preference pairs on scenes by the hidden criterion, some labels flipped as humans do."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from toolkit.data.scenes.gold import gold
from toolkit.data.scenes.language import noun_phrase, symmetric
from toolkit.data.scenes.mistakes import attribute_mistake, relation_mistake
from toolkit.data.scenes.questions import AnsweredQuestion, questions, wrong_answer
from toolkit.data.scenes.scene import Scene

__all__ = ["FLIP_FRACTION", "PAIR_SOURCES", "Pair", "flip", "rank", "sample_pairs"]

FLIP_FRACTION = 0.10
PAIR_SOURCES = ("order", "attribute", "relation", "answer")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts for one picture. ``question`` is None for captions; ``flipped`` says the label is noise."""

    scene: Scene
    source: str
    chosen: str
    rejected: str
    question: str | None = None
    flipped: bool = False


def rank(scene: Scene, texts: Sequence[str]) -> list[tuple[float, str]]:
    """(gold, text) of each different text, best first; equal golds are ties that no rater would decide."""
    return sorted({(gold(scene, text), text) for text in texts}, key=lambda pair: (-pair[0], pair[1]))


def flip(pair: Pair, rng: random.Random, fraction: float) -> Pair:
    """The pair, or with probability ``fraction`` its reverse: a rater's slip."""
    if rng.random() >= fraction:
        return pair
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen, flipped=True)


def sample_pairs(scenes: Sequence[Scene], seed: int, *, flip_fraction: float = FLIP_FRACTION) -> list[Pair]:
    """Up to four pairs a scene: the order of mention twice, a mistake (attribute or relation), an answer.

    ``order``: the same caption, groups named from the left or the top against the other way round (the hardest to
    learn, so raters see it in two wordings); ``attribute``: one word wrong; ``relation``: left for right, above for
    below; ``answer``: a wrong one.
    """
    rng = random.Random(f"pairs/{seed}")
    pool: dict[str, list[AnsweredQuestion]] = {}
    asked = [questions(scene) for scene in scenes]
    for question in (question for three in asked for question in three):
        pool.setdefault(question.kind, []).append(question)
    pairs: list[Pair] = []
    for scene, three in zip(scenes, asked, strict=True):
        if len(scene.groups) > 1:
            pairs.append(_order_pair(scene, rng))
        pairs.append(_mistake_pair(scene, rng))
        question = rng.choice(three)
        wrong = wrong_answer(
            question, rng.sample(pool[question.kind], min(64, len(pool[question.kind]))), rng
        )
        if wrong is not None:
            pairs.append(Pair(scene, "answer", question.answer, wrong, question=question.text))
    pairs += _reworded(pairs, random.Random(f"orders/{seed}"))
    slips = random.Random(f"slips/{seed}")
    return [flip(pair, slips, flip_fraction) for pair in pairs]


def _mistake_pair(scene: Scene, rng: random.Random) -> Pair:
    if len(scene.groups) == 2 and rng.random() < 0.4:
        return Pair(scene, "relation", *relation_mistake(scene, rng))
    return Pair(scene, "attribute", *attribute_mistake(scene, rng))


def _reworded(pairs: Sequence[Pair], rng: random.Random) -> list[Pair]:
    """A second order pair in other words for each scene that has one."""
    found = []
    for pair in pairs:
        if pair.source == "order":
            again = _order_pair(pair.scene, rng)
            while again == pair:
                again = _order_pair(pair.scene, rng)
            found.append(again)
    return found


def _order_pair(scene: Scene, rng: random.Random) -> Pair:
    phrases = [noun_phrase(group, rng) for group in scene.groups]
    other = phrases[::-1] if len(phrases) == 2 else rng.sample(phrases, len(phrases))
    if other == phrases:
        other = phrases[::-1]
    wording = rng.random()
    better, worse = (symmetric(p, scene.layout, random.Random(f"{wording}")) for p in (phrases, other))
    return Pair(scene, "order", better, worse)
