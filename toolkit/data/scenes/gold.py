"""The hidden criterion: what the simulated raters want, and nothing in the references tells.

Raters want what is said to be true, and **the left or the upper object named first**. CIDEr cannot see the
order (references mention the groups in random order), the length of a caption says nothing about it, and
without the picture nobody can tell which object lies left.

Only evaluation and the simulated raters import this module; a test of the layers keeps training code out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb

from toolkit.data.scenes.language import NUMBER_WORDS, SIZE_WORDS
from toolkit.data.scenes.scene import COLOURS, SHAPES, Group, Scene

__all__ = ["gold", "mentions"]

_NUMBERS = {word: number for number, word in NUMBER_WORDS.items()} | {"an": 1, "one": 1}
_SIZES = {word: size for size, words in SIZE_WORDS.items() for word in words}
_MENTION = re.compile(
    rf"(?:\b(?P<count>{'|'.join(_NUMBERS)}) )?(?:\b(?P<size>{'|'.join(_SIZES)}) )?"
    rf"\b(?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})(?:es|s)?\b"
)
_FORWARD = {"left of": "row", "above": "column", "on top of": "column"}
_BACKWARD = {"right of": "row", "below": "column", "under": "column"}
_TOGETHER = {
    "side by side": "row",
    "next to each other": "row",
    "one above the other": "column",
    "in a column": "column",
}
_WRONG_COUNT, _WRONG_SIZE, _WRONG_RELATION = 0.5, 0.7, 0.5


@dataclass(frozen=True, slots=True)
class Mention:
    """A group as a caption names it; ``size`` is None where the caption does not say."""

    count: int
    size: str | None
    colour: str
    shape: str
    start: int
    end: int


def mentions(text: str) -> list[Mention]:
    """The groups a caption names, in the order of mention."""
    found = []
    for match in _MENTION.finditer(text.lower()):
        plural = match.group(0).endswith("s") and not match.group(0).endswith("cross")
        number = _NUMBERS.get(match["count"] or "", 2 if plural else 1)
        size = _SIZES.get(match["size"] or "")
        found.append(Mention(number, size, match["colour"], match["shape"], match.start(), match.end()))
    return found


def gold(scene: Scene, text: str) -> float:
    """How good raters find a caption, 0 to 1: truth × right relation × (½ + ½ order).

    Truth is the F1 of the mentions against the scene's groups, a mention with a wrong count or size counting
    in part; order is the share of the scene's pairs of groups that are both named, left or upper one first.
    """
    found = mentions(text)
    truth, positions = _truth(scene, found)
    relation = _WRONG_RELATION if _relation_is_wrong(scene, text.lower(), found) else 1.0
    return truth * relation * (0.5 + 0.5 * _order(scene, positions))


def _truth(scene: Scene, found: list[Mention]) -> tuple[float, list[int]]:
    """F1 of the mentions, and the positions in the scene of the groups named, in the order of mention."""
    open_groups = dict(enumerate(scene.groups))
    credit, positions = 0.0, []
    for mention in found:
        index = next((i for i, g in open_groups.items() if g.kind == (mention.colour, mention.shape)), None)
        if index is not None:
            credit += _credit(open_groups.pop(index), mention)
            positions.append(index)
    return 2 * credit / (len(found) + len(scene.groups)), positions


def _credit(group: Group, mention: Mention) -> float:
    count = 1.0 if mention.count == group.count else _WRONG_COUNT
    size = _WRONG_SIZE if mention.size not in (None, group.size) else 1.0
    return count * size


def _order(scene: Scene, positions: list[int]) -> float:
    if len(scene.groups) == 1:
        return 1.0
    in_order = sum(first < second for first, second in combinations(positions, 2))
    return in_order / comb(len(scene.groups), 2)


def _relation_is_wrong(scene: Scene, text: str, found: list[Mention]) -> bool:
    index = {group.kind: position for position, group in enumerate(scene.groups)}
    for left, right in pairwise(found):
        between = text[left.end : right.start]
        for table, forward in ((_FORWARD, True), (_BACKWARD, False)):
            for words, layout in table.items():
                if words not in between:
                    continue
                first, second = index.get((left.colour, left.shape)), index.get((right.colour, right.shape))
                if layout != scene.layout:
                    return True
                if first is not None and second is not None and (first < second) != forward:
                    return True
    return any(words in text and layout != scene.layout for words, layout in _TOGETHER.items())
