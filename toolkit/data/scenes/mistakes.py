"""A true text about a scene beside one with a single mistake: the material of raters and of judged texts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from toolkit.data.scenes.language import directional, noun_phrase, symmetric
from toolkit.data.scenes.questions import absent_kinds
from toolkit.data.scenes.scene import SIZES, Group, Scene

__all__ = ["attribute_mistake", "relation_mistake"]


def attribute_mistake(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """A caption and the same with one attribute of one group wrong; order and wording are random and shared."""
    index = rng.randrange(len(scene.groups))
    changed = list(scene.groups)
    changed[index] = _with_wrong_attribute(scene, scene.groups[index], rng)
    order = rng.sample(range(len(changed)), len(changed))
    wording = [rng.random() for _ in range(len(changed) + 1)]

    def caption(groups: Sequence[Group]) -> str:
        phrases = [noun_phrase(groups[i], random.Random(f"{wording[i]}"), size=True) for i in order]
        return symmetric(phrases, scene.layout, random.Random(f"{wording[-1]}"))

    return caption(scene.groups), caption(changed)


def relation_mistake(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """The right relation of two groups and the opposite one, the order of mention being the same on both sides."""
    order = rng.sample((0, 1), 2)
    first, second = (noun_phrase(scene.groups[index], rng) for index in order)
    forward = order[0] < order[1]
    wording = rng.random()
    right, wrong = (
        directional(first, second, scene.layout, random.Random(f"{wording}"), forward=way)
        for way in (forward, not forward)
    )
    return right, wrong


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
