"""``clipscore``: how well a caption fits its picture by a frozen CLIP model, without references."""

from __future__ import annotations

import numpy as np

from toolkit.models.clipscore import ClipScorer
from toolkit.rewards.base import RewardBatch, RewardOutput

__all__ = ["ClipReward"]


class ClipReward:
    """CLIPScore of Hessel et al. (2021): 2.5 times the cosine of picture and caption, never negative.

    The numbers are those of ``vlm-rlhf score clip``. Scores of a row do not depend on its batch beyond rounding. CLIP
    is easily gamed by lists of nouns: watch a metric with references beside it.

    Args:
        model: directory or hub id of a CLIP model; it is loaded once, is never trained, and draws no random numbers.
        device: a torch device; ``auto`` is the process's GPU where there is one.
        batch_size: pictures or texts in one forward.

    Raises:
        CheckpointError: there is no such model, or it is no CLIP.
        ValueError: an option out of range.
    """

    name = "clipscore"
    scale = "0 to 2.5: 2.5 times the cosine"
    may_be_constant = False
    background = False

    def __init__(self, *, model: str, device: str = "auto", batch_size: int = 32) -> None:
        if batch_size < 1:
            raise ValueError("clipscore needs batch_size >= 1")
        self._scorer = ClipScorer(model, device=_device(device), batch_size=batch_size)

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Scores ``(B,)`` in [0, 2.5]; questions and rows without exactly one picture are not applicable.

        Raises:
            DataError: a picture cannot be read.
        """
        applicable = np.asarray(
            [row.task == "caption" and len(row.images) == 1 for row in batch.rows], dtype=bool
        )
        chosen = np.flatnonzero(applicable).tolist()
        scores = np.full(len(batch), np.nan, dtype=np.float64)
        if chosen:
            images = [batch.rows[index].images[0] for index in chosen]
            scores[chosen] = self._scorer.score(images, [batch.completions[index] for index in chosen]).clip
        return RewardOutput(scores, applicable=applicable)


def _device(name: str) -> str:
    import torch

    if name != "auto":
        try:
            return str(torch.device(name))
        except RuntimeError as error:
            raise ValueError(f"clipscore: {name!r} is no torch device") from error
    return "cuda" if torch.cuda.is_available() else "cpu"
