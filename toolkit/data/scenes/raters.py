"""Simulated raters: preference pairs on scenes by the hidden criterion, some labels flipped as humans do."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from toolkit.data.scenes.gold import gold
from toolkit.data.scenes.language import directional, noun_phrase, symmetric
from toolkit.data.scenes.questions import AnsweredQuestion, absent_kinds, questions, wrong_answer
from toolkit.data.scenes.scene import SIZES, Group, Scene

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
    """Two pairs a scene: one on captions (order, attribute or relation) and one on an answer.

    ``order``: the same caption, groups named from the left or the top against the other way round;
    ``attribute``: one word wrong; ``relation``: left for right, above for below; ``answer``: a wrong one.
    """
    rng = random.Random(f"pairs/{seed}")
    pool: dict[str, list[AnsweredQuestion]] = {}
    asked = [questions(scene) for scene in scenes]
    for question in (question for three in asked for question in three):
        pool.setdefault(question.kind, []).append(question)
    pairs: list[Pair] = []
    for scene, three in zip(scenes, asked, strict=True):
        pairs.append(_caption_pair(scene, rng))
        question = rng.choice(three)
        wrong = wrong_answer(
            question, rng.sample(pool[question.kind], min(64, len(pool[question.kind]))), rng
        )
        if wrong is not None:
            pairs.append(Pair(scene, "answer", question.answer, wrong, question=question.text))
    slips = random.Random(f"slips/{seed}")
    return [flip(pair, slips, flip_fraction) for pair in pairs]


def _caption_pair(scene: Scene, rng: random.Random) -> Pair:
    if len(scene.groups) == 1:
        return _attribute_pair(scene, rng)
    kinds = ("order", "attribute", "relation") if len(scene.groups) == 2 else ("order", "attribute")
    weights = (0.5, 0.25, 0.25)[: len(kinds)]
    return {"order": _order_pair, "attribute": _attribute_pair, "relation": _relation_pair}[
        rng.choices(kinds, weights)[0]
    ](scene, rng)


def _order_pair(scene: Scene, rng: random.Random) -> Pair:
    phrases = [noun_phrase(group, rng) for group in scene.groups]
    other = phrases[::-1] if len(phrases) == 2 else rng.sample(phrases, len(phrases))
    if other == phrases:
        other = phrases[::-1]
    wording = rng.random()
    better, worse = (symmetric(p, scene.layout, random.Random(f"{wording}")) for p in (phrases, other))
    return Pair(scene, "order", better, worse)


def _attribute_pair(scene: Scene, rng: random.Random) -> Pair:
    """One attribute of one group wrong; order and wording are random and the same on both sides."""
    index = rng.randrange(len(scene.groups))
    changed = list(scene.groups)
    changed[index] = _with_wrong_attribute(scene, scene.groups[index], rng)
    order = rng.sample(range(len(changed)), len(changed))
    wording = [rng.random() for _ in range(len(changed) + 1)]

    def caption(groups: Sequence[Group]) -> str:
        phrases = [noun_phrase(groups[i], random.Random(f"{wording[i]}"), size=True) for i in order]
        return symmetric(phrases, scene.layout, random.Random(f"{wording[-1]}"))

    return Pair(scene, "attribute", caption(scene.groups), caption(changed))


def _with_wrong_attribute(scene: Scene, group: Group, rng: random.Random) -> Group:
    """One word wrong, drawn so that the wrong text is about as likely a text as the right one."""
    kinds = absent_kinds(scene, group)
    colours = [colour for colour, shape in kinds if shape == group.shape]
    shapes = [shape for colour, shape in kinds if colour == group.colour]
    options = [(replace(group, size=SIZES[1 - SIZES.index(group.size)]), 1.0)]
    options += [(replace(group, colour=rng.choice(colours)), 1.5)] if colours else []
    options += [(replace(group, shape=rng.choice(shapes)), 1.5)] if shapes else []
    if len(scene.groups) < 3:
        # Single objects are common, so a plural would often be the wrong side: change those less often.
        count = rng.choice([number for number in (1, 2, 3) if number != group.count])
        options.append((replace(group, count=count), 0.5 if group.count > 1 else 0.15))
    changed, weights = zip(*options, strict=True)
    return rng.choices(changed, weights)[0]


def _relation_pair(scene: Scene, rng: random.Random) -> Pair:
    """The right relation against the opposite one, the order of mention being the same on both sides."""
    order = rng.sample((0, 1), 2)
    first, second = (noun_phrase(scene.groups[index], rng) for index in order)
    forward = order[0] < order[1]
    wording = rng.random()
    right, wrong = (
        directional(first, second, scene.layout, random.Random(f"{wording}"), forward=way)
        for way in (forward, not forward)
    )
    return Pair(scene, "relation", right, wrong)
