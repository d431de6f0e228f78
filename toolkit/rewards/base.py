"""What a reward is: a callable from completions to one number each, with the numbers it is made of.

The same objects serve the RL loop, preference building, best-of-n and TRL's trainers (``trl_adapter``).

Three states of a score are kept apart, because mixing them up biases training silently:

* a finite number: the score;
* *failed* (``NaN`` where the reward applies): counted, the row is masked out of the update, never read as 0;
* *not applicable* (``applicable`` False): the reward says nothing about this row (a caption metric on a
  question); the row is left out of its sum and of its statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from toolkit.records import ImageSource, PromptRow

if TYPE_CHECKING:
    from toolkit.models.families.features import ImageFeatures

__all__ = [
    "BoolArray",
    "FloatArray",
    "PictureFeatures",
    "Reward",
    "RewardBatch",
    "RewardOutput",
    "columns_of",
]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PictureFeatures:
    """What a frozen vision tower made of a batch's pictures, by the ``images`` of a row.

    A reward model that is an adapter on ``model``, the very object, takes them in place of its own pass of the tower.
    """

    model: object
    by_images: Mapping[tuple[ImageSource, ...], tuple[ImageFeatures, ...]]


@dataclass(frozen=True, slots=True)
class RewardBatch:
    """``B`` completions and the rows they answer.

    ``completions`` are decoded and stripped. ``ended`` says whether the completion closed itself (an end
    token) instead of being cut at ``max_new_tokens``. ``num_tokens`` counts the sampled tokens, the end
    token included. ``token_ids`` may be empty; only rewards that declare TRL's signature read it. A prompt's
    completions form a group. ``pictures`` saves reward models on the policy's base the tower.

    Raises:
        ValueError: if the sequences differ in length.
    """

    rows: Sequence[PromptRow]
    completions: Sequence[str]
    ended: Sequence[bool]
    num_tokens: Sequence[int]
    token_ids: Sequence[Sequence[int]] = ()
    pictures: PictureFeatures | None = None

    def __post_init__(self) -> None:
        sizes = {len(self.rows), len(self.completions), len(self.ended), len(self.num_tokens)}
        sizes |= {len(self.token_ids)} if self.token_ids else set()
        if len(sizes) != 1:
            raise ValueError(f"a reward batch needs sequences of one length, found lengths {sorted(sizes)}")

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> RewardBatch:
        """The rows at ``indices``, in that order."""
        chosen = [int(index) for index in indices]
        return RewardBatch(
            rows=[self.rows[index] for index in chosen],
            completions=[self.completions[index] for index in chosen],
            ended=[self.ended[index] for index in chosen],
            num_tokens=[self.num_tokens[index] for index in chosen],
            token_ids=[self.token_ids[index] for index in chosen] if self.token_ids else (),
            pictures=self.pictures,
        )


@dataclass(frozen=True, slots=True)
class RewardOutput:
    """Scores ``(B,)`` in float64, the parts they are made of, and where the reward applies.

    ``parts`` maps a name to ``(B,)``. ``scores`` is NaN where the reward failed and where it does not apply;
    ``applicable`` tells the two apart (None means: applies everywhere).
    """

    scores: FloatArray
    parts: dict[str, FloatArray] = field(default_factory=dict)
    applicable: BoolArray | None = None

    def __post_init__(self) -> None:
        shapes = {self.scores.shape, *(part.shape for part in self.parts.values())}
        if self.applicable is not None:
            shapes.add(self.applicable.shape)
        if len(shapes) != 1 or self.scores.ndim != 1:
            raise ValueError(
                f"a reward output needs arrays of one shape (B,), found {sorted(map(str, shapes))}"
            )

    @property
    def applies(self) -> BoolArray:
        """``(B,)``: the reward says something about the row."""
        if self.applicable is None:
            return np.ones(self.scores.shape, dtype=bool)
        return self.applicable

    @property
    def failed(self) -> BoolArray:
        """``(B,)``: the reward should have scored the row and could not."""
        return self.applies & ~np.isfinite(self.scores)


@runtime_checkable
class Reward(Protocol):
    """A reward. ``scale`` states the range of its scores in words, because rewards are added to one another.

    ``may_be_constant`` is True for penalties, which may be 0 on every sample of a healthy policy; any other
    reward that is constant on the calibration samples teaches nothing and stops the run. ``background`` is True for
    rewards that need neither the policy's device nor the main thread: the RL loop scores them while the model computes.
    """

    name: str
    scale: str
    may_be_constant: bool
    background: bool

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Score a batch; a row's score never depends on the other rows of the batch."""
        ...


def columns_of(rows: Sequence[PromptRow]) -> Mapping[str, list[object]]:
    """The rows' fields as TRL-style columns, one list entry a row; keys of ``meta`` become columns too."""
    columns: dict[str, list[object]] = {
        "sample_id": [row.sample_id for row in rows],
        "image_id": [row.image_id for row in rows],
        "task": [row.task for row in rows],
        "images": [list(row.images) for row in rows],
        "references": [list(row.references) for row in rows],
        "answers": [list(row.answers) for row in rows],
    }
    keys = (
        {key for row in rows for key in row.meta}
        - set(columns)
        - {"prompts", "completions", "completion_ids"}
    )
    for key in sorted(keys):
        columns[key] = [row.meta.get(key) for row in rows]
    return columns
