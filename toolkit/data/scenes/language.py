"""What people say of a scene: reference captions, and the plain captions a base model is pretrained on.

Positions are written only as relations between two groups, and the order of mention is random: nothing in the
references says which group a rater wants named first.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from toolkit.data.scenes.scene import Group, Layout, Scene

__all__ = [
    "NUMBER_WORDS",
    "SIZE_WORDS",
    "directional",
    "noun_phrase",
    "plain_caption",
    "plain_list",
    "references",
    "symmetric",
]

NUMBER_WORDS = {1: "a", 2: "two", 3: "three"}
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
_FIRST_WORDS = {"row": ("to the left of", "left of"), "column": ("above", "on top of")}
_SECOND_WORDS = {"row": ("to the right of", "right of"), "column": ("below", "under")}
_TOGETHER_WORDS = {
    "row": ("side by side", "next to each other"),
    "column": ("one above the other", "in a column"),
}
_FRAMES = ("{}", "{}", "{} on a grey background", "a picture of {}", "there is {}", "an image with {}")


def noun_phrase(group: Group, rng: random.Random, *, size: bool | None = None) -> str:
    """``two small red circles``; the size is named in three of four phrases, or as ``size`` says."""
    named = rng.random() < 0.75 if size is None else size
    words = [NUMBER_WORDS[group.count]]
    if named:
        words.append(rng.choices(SIZE_WORDS[group.size], (0.75, 0.25))[0])
    words += [group.colour, plural(group.shape) if group.count > 1 else group.shape]
    phrase = " ".join(words)
    return phrase.replace("a orange", "an orange", 1) if phrase.startswith("a orange") else phrase


def plural(shape: str) -> str:
    """The plural of a shape's name."""
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def symmetric(phrases: Sequence[str], layout: Layout, rng: random.Random) -> str:
    """The phrases joined without saying which one is where; sometimes with the layout (``side by side``)."""
    listed = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    if len(phrases) == 2 and rng.random() < 0.25:
        return f"{listed} {rng.choice(_TOGETHER_WORDS[layout])}"
    frame = rng.choice(_FRAMES)
    return frame.replace(
        "there is", "there are" if listed.startswith(("two", "three")) else "there is"
    ).format(listed)


def directional(first: str, second: str, layout: Layout, rng: random.Random, *, forward: bool) -> str:
    """``first`` as lying left of or above ``second`` (``forward``), or else right of or below it."""
    words = (_FIRST_WORDS if forward else _SECOND_WORDS)[layout]
    return f"{first} {rng.choice(words)} {second}"


def references(scene: Scene, *, number: int = 5) -> list[str]:
    """``number`` differently worded captions, in random order of mention; the same for the same scene."""
    rng = random.Random(f"references/{scene.jitter}/{scene.canonical()}")
    captions: list[str] = []
    while len(captions) < number:
        caption = _reference(scene, rng)
        # A one-group scene has few wordings: allow a repeat once the obvious ones are used up.
        if caption not in captions or rng.random() < 0.05:
            captions.append(caption)
    return captions


def _reference(scene: Scene, rng: random.Random) -> str:
    order = list(range(len(scene.groups)))
    rng.shuffle(order)
    phrases = [noun_phrase(scene.groups[index], rng) for index in order]
    if len(order) == 2 and rng.random() < 0.4:
        return directional(phrases[0], phrases[1], scene.layout, rng, forward=order[0] < order[1])
    return symmetric(phrases, scene.layout, rng)


def plain_caption(scene: Scene, rng: random.Random) -> str:
    """A telegraphic list, as a base model writes before it has learnt our style: ``red circle small, …``."""
    groups = list(scene.groups)
    rng.shuffle(groups)
    return plain_list(groups)


def plain_list(groups: Sequence[Group]) -> str:
    """The groups as a telegraphic list, in the order given."""
    items = []
    for group in groups:
        number = "" if group.count == 1 else f"{NUMBER_WORDS[group.count]} "
        items.append(f"{number}{group.colour} {group.shape} {group.size}")
    return ", ".join(items)
