"""Dense shaping: the score of every prefix of a completion as a potential."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from transformers import PreTrainedTokenizerBase

from toolkit.rewards.base import FloatArray, RewardBatch, RewardOutput
from toolkit.rl.rollout import Rollout

__all__ = ["prefix_potentials"]


def prefix_potentials(
    score: Callable[[RewardBatch], RewardOutput], rollout: Rollout, tokenizer: PreTrainedTokenizerBase
) -> FloatArray:
    """``(B, T)``: the score of the text before each token, as a completion that has not ended; 0 on padding.

    All prefixes are scored in one call. A row whose score fails or does not apply anywhere is 0 throughout: no
    shaping, instead of a potential with holes.
    """
    owners, places, texts = [], [], []
    for index, item in enumerate(rollout.completions):
        ids = item.token_ids.tolist()
        for place in range(len(ids)):
            owners.append(index)
            places.append(place)
            texts.append(tokenizer.decode(ids[:place], skip_special_tokens=True).strip())
    batch = RewardBatch(
        rows=[rollout.rows[index] for index in owners],
        completions=texts,
        ended=[False] * len(texts),
        num_tokens=list(places),
        token_ids=[
            rollout.completions[i].token_ids[:p].tolist() for i, p in zip(owners, places, strict=True)
        ],
    )
    potentials = np.zeros(tuple(rollout.mask.shape), dtype=np.float64)
    potentials[owners, places] = score(batch).scores
    potentials[~np.isfinite(potentials).all(axis=1)] = 0.0
    return potentials
