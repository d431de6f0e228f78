"""Draw scenes at random, in the wanted split only."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

from toolkit.data.scenes.scene import (
    COLOURS,
    SHAPES,
    SIZES,
    UNSEEN_COMBINATIONS,
    Group,
    Scene,
    Split,
    split_of,
)

__all__ = ["FIRST_IMAGE_ID", "Combinations", "sample_scenes"]

Combinations = Literal["seen", "unseen"]

FIRST_IMAGE_ID = {"train": 1_000_000, "val": 2_000_000, "test": 3_000_000, "pretrain": 4_000_000}
"""Image ids of the splits do not overlap, so that a leak between files shows as an id."""

_SEEN = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in UNSEEN_COMBINATIONS]
_NUMBER_OF_GROUPS = ((1, 0.15), (2, 0.60), (3, 0.25))
_COUNTS = ((1, 0.7), (2, 0.2), (3, 0.1))
_MOST_OBJECTS = 4


def sample_scenes(
    seed: int, split: Split, rows: int, *, combinations: Combinations = "seen"
) -> Iterator[Scene]:
    """Yield ``rows`` scenes of a split; the same seed gives the same scenes on every machine.

    With ``combinations="unseen"`` every scene holds at least one colour × shape pair never seen in training;
    such scenes exist in the test split only.
    """
    if combinations == "unseen" and split != "test":
        raise ValueError("unseen combinations exist in the test split only")
    rng = random.Random(f"scenes/{seed}/{split}/{combinations}")
    first = FIRST_IMAGE_ID[split] + (500_000 if combinations == "unseen" else 0)
    found, drawn = 0, set[tuple[str, tuple[Group, ...]]]()
    while found < rows:
        scene = _draw(rng, first + found, combinations)
        key = (scene.layout, scene.groups)
        # One-group scenes are few, so they may come again with other jitter; the others may not.
        if split_of(scene) != split or (len(scene.groups) > 1 and key in drawn):
            continue
        drawn.add(key)
        found += 1
        yield scene


def _draw(rng: random.Random, image_id: int, combinations: Combinations) -> Scene:
    number = _weighted(rng, _NUMBER_OF_GROUPS)
    kinds = rng.sample(_SEEN, number)
    if combinations == "unseen":
        kinds[rng.randrange(number)] = rng.choice(sorted(UNSEEN_COMBINATIONS))
    counts = [1] * number if number == 3 else [_weighted(rng, _COUNTS) for _ in kinds]
    while sum(counts) > _MOST_OBJECTS:
        counts[counts.index(max(counts))] -= 1
    groups = tuple(
        Group(count=count, size=rng.choice(SIZES), colour=colour, shape=shape)
        for count, (colour, shape) in zip(counts, kinds, strict=True)
    )
    layout: Literal["row", "column"] = rng.choice(("row", "column"))
    return Scene(image_id=image_id, layout=layout, groups=groups, jitter=rng.randrange(2**31))


def _weighted(rng: random.Random, table: tuple[tuple[int, float], ...]) -> int:
    values, weights = zip(*table, strict=True)
    return rng.choices(values, weights)[0]
