"""Questions of the three VQA answer types, each with ten annotators who sometimes disagree."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from toolkit.data.scenes.language import SIZE_WORDS, plural
from toolkit.data.scenes.scene import COLOURS, SHAPES, UNSEEN_COMBINATIONS, Group, Scene

__all__ = ["AnsweredQuestion", "absent_kinds", "annotators", "questions", "wrong_answer"]

_ANNOTATORS = 10
_SLIP = 0.08
"""Chance that an annotator answers something else; easy VQA v2 questions see disagreement of this order."""


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """A question, its true answer, and how the VQA files classify it.

    ``kind`` names the template: answers of one kind are exchangeable, so a wrong answer drawn from the same
    kind betrays nothing by its wording.
    """

    text: str
    answer: str
    answer_type: str
    question_type: str
    kind: str


def questions(scene: Scene, *, tag: str = "questions") -> list[AnsweredQuestion]:
    """Three questions on a scene, one of each answer type; the same for the same scene and tag."""
    rng = random.Random(f"{tag}/{scene.jitter}/{scene.canonical()}")
    return [_yes_no(scene, rng), _number(scene, rng), _other(scene, rng)]


def annotators(question: AnsweredQuestion, rng: random.Random) -> list[str]:
    """Ten answers: mostly the true one, sometimes a synonym or a slip."""
    return [_slip(question, rng) if rng.random() < _SLIP else question.answer for _ in range(_ANNOTATORS)]


def wrong_answer(
    question: AnsweredQuestion, pool: Iterable[AnsweredQuestion], rng: random.Random
) -> str | None:
    """The true answer of another question of the same kind, where it differs; None where there is none."""
    others = [
        other.answer for other in pool if other.kind == question.kind and other.answer != question.answer
    ]
    return rng.choice(others) if others else None


def _slip(question: AnsweredQuestion, rng: random.Random) -> str:
    if question.answer_type == "yes/no":
        return "no" if question.answer == "yes" else "yes"
    if question.answer_type == "number":
        return str(max(0, int(question.answer) + rng.choice((-1, 1))))
    if question.answer in SIZE_WORDS:
        return SIZE_WORDS[question.answer][1]
    return "unknown"


def _yes_no(scene: Scene, rng: random.Random) -> AnsweredQuestion:
    if len(scene.groups) > 1 and rng.random() < 0.5:
        return _relation_question(scene, rng)
    true = rng.random() < 0.5
    group = rng.choice(scene.groups)
    kind = group.kind if true else rng.choice(absent_kinds(scene, group))
    text = f"is there {_article(kind[0])} {kind[0]} {kind[1]}?"
    return AnsweredQuestion(text, "yes" if true else "no", "yes/no", "is there a", "exists")


def _relation_question(scene: Scene, rng: random.Random) -> AnsweredQuestion:
    first, second = rng.sample(range(len(scene.groups)), 2)
    forward = rng.random() < 0.5
    words = {True: {"row": "left of", "column": "above"}, False: {"row": "right of", "column": "below"}}
    verb = "are" if scene.groups[first].count > 1 else "is"
    names = _name(scene.groups[first]), _name(scene.groups[second])
    text = f"{verb} the {names[0]} {words[forward][scene.layout]} the {names[1]}?"
    return AnsweredQuestion(
        text, "yes" if (first < second) == forward else "no", "yes/no", "is the", "relation"
    )


def _number(scene: Scene, rng: random.Random) -> AnsweredQuestion:
    def counted(test: Callable[[Group], bool]) -> str:
        return str(sum(group.count for group in scene.groups if test(group)))

    draw = rng.random()
    if draw < 0.3:
        return AnsweredQuestion(
            "how many objects are there?", counted(lambda _: True), "number", "how many", "count all"
        )
    group = rng.choice(scene.groups)
    if draw < 0.65:
        shape = group.shape if rng.random() < 0.8 else rng.choice(SHAPES)
        text, test = f"how many {plural(shape)} are there?", lambda g: g.shape == shape
    else:
        colour = group.colour if rng.random() < 0.8 else rng.choice(COLOURS)
        text, test = f"how many {colour} objects are there?", lambda g: g.colour == colour
    return AnsweredQuestion(text, counted(test), "number", "how many", "count some")


def _other(scene: Scene, rng: random.Random) -> AnsweredQuestion:
    index = rng.randrange(len(scene.groups))
    group = scene.groups[index]
    rest = [other for other in scene.groups if other is not group]
    choices: list[AnsweredQuestion] = [_size_question(group)]
    plain = group.count > 1
    if all(other.shape != group.shape for other in rest):
        text = f"what color {'are' if plain else 'is'} the {_shape(group)}?"
        choices.append(AnsweredQuestion(text, group.colour, "other", "what color is the", "colour"))
    if all(other.colour != group.colour for other in rest):
        text = f"what shape {'are' if plain else 'is'} the {group.colour} object{'s' if plain else ''}?"
        choices.append(AnsweredQuestion(text, group.shape, "other", "what shape is the", "shape"))
    if index > 0:
        word = {"row": "left of", "column": "above"}[scene.layout]
        text = f"what color is directly {word} the {_name(group)}?"
        choices.append(
            AnsweredQuestion(text, scene.groups[index - 1].colour, "other", "what color is", "neighbour")
        )
    return rng.choice(choices)


def _size_question(group: Group) -> AnsweredQuestion:
    text = f"what size {'are' if group.count > 1 else 'is'} the {_name(group)}?"
    return AnsweredQuestion(text, group.size, "other", "what size is the", "size")


def absent_kinds(scene: Scene, group: Group) -> list[tuple[str, str]]:
    """Colour × shape pairs the scene lacks and that differ from ``group`` in one word.

    Pairs no training picture shows are left out for training-like scenes: their names would betray the answer.
    """
    near = [(colour, group.shape) for colour in COLOURS] + [(group.colour, shape) for shape in SHAPES]
    taken = {other.kind for other in scene.groups}
    hidden = frozenset() if scene.has_unseen_combination else UNSEEN_COMBINATIONS
    return [kind for kind in near if kind not in taken and kind not in hidden]


def _article(word: str) -> str:
    return "an" if word.startswith("o") else "a"


def _shape(group: Group) -> str:
    return plural(group.shape) if group.count > 1 else group.shape


def _name(group: Group) -> str:
    return f"{group.colour} {_shape(group)}"
