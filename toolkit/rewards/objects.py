"""Objects that a caption names, against those annotated in its picture: ``chair`` and ``object_recall``.

Counted by ``toolkit.metrics.chair`` (Rohrbach et al. 2018), a caption at a time. Both need an annotation of the
picture; a row whose picture has none is not applicable.
"""

from __future__ import annotations

import numpy as np

from toolkit.metrics.chair import ChairScores, Synonyms, read_objects, score_chair
from toolkit.records import PromptRow
from toolkit.rewards.base import RewardBatch, RewardOutput

__all__ = ["ChairReward", "ObjectRecallReward"]


class _Annotated:
    """What ``objects`` (COCO instances or ``{image_id: [name, …]}``) and ``synonyms`` say of captions.

    Raises:
        DataError: a file cannot be read or is something else.
    """

    def __init__(self, objects: str, synonyms: str, references: bool) -> None:
        self._objects = {str(image_id): names for image_id, names in read_objects(objects).items()}
        self._synonyms, self._references = Synonyms.read(synonyms), references

    def of(self, row: PromptRow, caption: str) -> ChairScores | None:
        """CHAIR of one caption; None for other tasks and for pictures without annotation."""
        names = self._objects.get(str(row.image_id))
        if row.task != "caption" or names is None:
            return None
        described = {0: row.references} if self._references else None
        return score_chair({0: caption}, self._synonyms, objects={0: names}, references=described)


class ChairReward:
    """Minus the share of a caption's mentions of objects that its picture lacks (CHAIR-i of one caption).

    A caption that names nothing invents nothing and scores 0: weigh the term together with one that asks for content.

    Args:
        objects: file of the pictures' objects, COCO instances or ``{image_id: [name, …]}``.
        synonyms: file with a line an object: name, synonym, synonym.
        references: what the row's references mention counts as present too, as in the paper.
    """

    name = "chair"
    scale = "-1 (every named object is invented) to 0"
    may_be_constant = True
    background = True

    def __init__(self, *, objects: str, synonyms: str, references: bool = False) -> None:
        self._annotated = _Annotated(objects, synonyms, references)

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Scores ``(B,)`` in [-1, 0]; questions and pictures without annotation are not applicable."""
        found = [
            self._annotated.of(row, text) for row, text in zip(batch.rows, batch.completions, strict=True)
        ]
        return _output([None if scores is None else 0.0 - scores.chair_i for scores in found])


class ObjectRecallReward:
    """The share of the picture's objects that a caption names; each object counts once.

    Args:
        objects: as for ``ChairReward``.
        synonyms: as for ``ChairReward``.
        references: objects that the row's references mention are asked for too.
    """

    name = "object_recall"
    scale = "0 to 1"
    may_be_constant = False
    background = True

    def __init__(self, *, objects: str, synonyms: str, references: bool = False) -> None:
        self._annotated = _Annotated(objects, synonyms, references)

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Scores ``(B,)`` in [0, 1]; not applicable to questions and where no object of the picture is known."""
        found = [
            self._annotated.of(row, text) for row, text in zip(batch.rows, batch.completions, strict=True)
        ]
        return _output(
            [
                None if scores is None or not scores.per_image[0]["objects"] else scores.recall
                for scores in found
            ]
        )


def _output(values: list[float | None]) -> RewardOutput:
    scores = np.asarray([np.nan if value is None else value for value in values], dtype=np.float64)
    return RewardOutput(scores, applicable=np.asarray([value is not None for value in values], dtype=bool))
