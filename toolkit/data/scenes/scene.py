"""What a scene is: groups of equal objects in a row or a column, and which split it belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from toolkit.errors import DataError

__all__ = [
    "COLOURS",
    "SHAPES",
    "SIZES",
    "UNSEEN_COMBINATIONS",
    "Group",
    "Layout",
    "Scene",
    "Split",
    "read_scenes",
    "split_of",
    "write_scenes",
]

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
SHAPES = ("circle", "square", "triangle", "cross", "ring")
SIZES = ("small", "large")
UNSEEN_COMBINATIONS = frozenset(
    {("red", "ring"), ("blue", "triangle"), ("yellow", "cross"), ("white", "square")}
)
"""10 % of the colour × shape pairs. No training, validation or ordinary test scene holds one of them."""

Layout = Literal["row", "column"]
Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Group:
    """``count`` equal objects. Two groups of a scene differ in colour or in shape."""

    count: int
    size: str
    colour: str
    shape: str

    @property
    def kind(self) -> tuple[str, str]:
        """(colour, shape): what names a group within its scene."""
        return self.colour, self.shape


@dataclass(frozen=True, slots=True)
class Scene:
    """One to three groups, ordered from left to right (``row``) or from top to bottom (``column``).

    ``jitter`` seeds what the description does not say: exact positions, sizes in pixels and shades.
    """

    image_id: int
    layout: Layout
    groups: tuple[Group, ...]
    jitter: int

    def canonical(self) -> str:
        """The description that decides the split: the groups alone, without their order, layout or jitter.

        Mirrored, transposed and re-drawn versions of a scene share it, so they share a split.
        """
        return "; ".join(sorted(f"{g.count} {g.size} {g.colour} {g.shape}" for g in self.groups))

    @property
    def has_unseen_combination(self) -> bool:
        """True when a group shows a colour × shape pair that no training picture shows."""
        return any(group.kind in UNSEEN_COMBINATIONS for group in self.groups)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Scene:
        """The scene of a ``scenes.jsonl`` row; other keys of the row (captions, gold) are ignored."""
        groups = tuple(Group(**group) for group in row["groups"])
        return cls(image_id=row["image_id"], layout=row["layout"], groups=groups, jitter=row["jitter"])


def split_of(scene: Scene) -> Split:
    """The split of a scene: 80 % train, 10 % val, 10 % test by a hash of its canonical description.

    The same for every seed and for pretraining. Scenes with an unseen combination are always ``test``.
    """
    if scene.has_unseen_combination:
        return "test"
    bucket = int(hashlib.sha256(scene.canonical().encode()).hexdigest()[:8], 16) % 100
    return "train" if bucket < 80 else "val" if bucket < 90 else "test"


def write_scenes(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines, one scene with its extra columns a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_scenes(path: Path) -> dict[int, Scene]:
    """The scenes of a ``scenes.jsonl`` file by image id.

    Raises:
        DataError: a line is not a scene; names file and line.
    """
    return {scene.image_id: scene for scene in _scenes(path)}


def _scenes(path: Path) -> Iterator[Scene]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            yield Scene.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            problem = (
                f"line {number}: expected a scene with image_id, layout, groups and jitter, found {error!r}"
            )
            raise DataError(
                str(path), problem, remedy="write it with: vlm-rlhf data sample --out DIR"
            ) from error
