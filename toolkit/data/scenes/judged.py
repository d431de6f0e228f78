"""Texts about a scene that are right or wrong, for the part of pretraining that teaches to compare.

True and false only: which of two true captions a rater likes better is told nowhere. Where a caption must keep an
order, its prompt asks for one (``Describe the image from right to left.``), and every direction is asked as often
as its opposite.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from toolkit.data.scenes.language import noun_phrase, references, symmetric
from toolkit.data.scenes.mistakes import attribute_mistake, relation_mistake
from toolkit.data.scenes.questions import questions
from toolkit.data.scenes.scene import Group, Scene

__all__ = ["directed", "judged_texts"]

Statement = tuple[str, str, str]
"""(prompt, right completion, wrong completion)."""

_DIRECTIONS = {
    "row": ("from left to right", "from right to left"),
    "column": ("from top to bottom", "from bottom to top"),
}


def judged_texts(
    scene: Scene, others: Sequence[Scene], rng: random.Random, *, prompt: str
) -> Iterator[tuple[str, str, bool]]:
    """(prompt, completion, right) of captions and answers, each right one beside a wrong one.

    Args:
        scene: the picture.
        others: scenes to borrow wrong captions and answers from.
        rng: draws what is said and how.
        prompt: what a caption answers.
    """
    statements = [(prompt, *attribute_mistake(scene, rng)) for _ in range(3)]
    if len(scene.groups) == 2:
        statements.append((prompt, *relation_mistake(scene, rng)))
    if len(scene.groups) > 1:
        statements += [_listing(scene, rng, prompt) for _ in range(2)]
    statements += _mismatch(scene, rng.choice(others), rng, prompt)
    for _ in range(2):
        statements += _answer(scene, rng.sample(others, 8), rng)
    for asked, right, wrong in statements:
        yield asked, right, True
        yield asked, wrong, False


def directed(scene: Scene, prompt: str, *, backward: bool) -> tuple[str, tuple[Group, ...]]:
    """The prompt with a direction (``… from left to right.``), and the scene's groups in that order."""
    asked = f"{prompt.rstrip('.')} {_DIRECTIONS[scene.layout][backward]}."
    return asked, scene.groups[::-1] if backward else scene.groups


def _listing(scene: Scene, rng: random.Random, prompt: str) -> Statement:
    """The objects in the order that the prompt asks for, and in another one."""
    asked, groups = directed(scene, prompt, backward=rng.random() < 0.5)
    wrong = groups[::-1]
    while len(groups) > 2 and (wrong := tuple(rng.sample(groups, len(groups)))) == groups:
        pass
    phrases = {group: noun_phrase(group, rng) for group in groups}
    wording = f"{rng.random()}"

    def caption(order: Sequence[Group]) -> str:
        return symmetric([phrases[group] for group in order], scene.layout, random.Random(wording))

    return asked, caption(groups), caption(wrong)


def _mismatch(scene: Scene, other: Scene, rng: random.Random, prompt: str) -> list[Statement]:
    """The caption of another picture; none where both show the same objects."""
    if scene.canonical() == other.canonical():
        return []
    return [(prompt, rng.choice(references(scene)), rng.choice(references(other)))]


def _answer(scene: Scene, others: Sequence[Scene], rng: random.Random) -> list[Statement]:
    """A question's answer, and the answer that another picture gives to a question of the same kind."""
    asked = rng.choice(questions(scene, tag=f"judged/{rng.random()}"))
    wrong = [
        question.answer
        for other in others
        for question in questions(other, tag=f"judged/{rng.random()}")
        if question.kind == asked.kind and question.answer != asked.answer
    ]
    return [(asked.text, asked.answer, rng.choice(wrong))] if wrong else []
