"""Shaping terms: small penalties, 0 for a sound completion and negative otherwise; no references needed."""

from __future__ import annotations

from collections import Counter

import numpy as np

from toolkit.metrics import tokenize
from toolkit.rewards.base import RewardBatch, RewardOutput

__all__ = ["BAD_ENDINGS", "BadEndingReward", "LengthReward", "RepetitionReward"]

# Words an English caption does not end with: the trace of a policy that was paid for n-grams, not sentences
# (the "bad endings" that self-critical training on CIDEr is known for, Guo et al. 2018, section 4).
_OPENERS = ("a", "an", "the", "some", "this", "that", "these", "those", "his", "her", "its", "their")
_PREPOSITIONS = (
    "of",
    "on",
    "in",
    "at",
    "with",
    "to",
    "for",
    "from",
    "by",
    "near",
    "next",
    "behind",
    "between",
)
_CONNECTORS = ("under", "over", "into", "onto", "and", "or", "as", "while", "is", "are", "was", "were", "has")
BAD_ENDINGS = frozenset({*_OPENERS, *_PREPOSITIONS, *_CONNECTORS})


class LengthReward:
    """Minus the number of sampled tokens outside ``[min_tokens, max_tokens]``, in units of ``per_tokens``."""

    name = "length"
    scale = "0 inside the range, -1 for every per_tokens tokens outside it"
    may_be_constant = True
    background = True

    def __init__(self, *, min_tokens: int = 1, max_tokens: int = 32, per_tokens: float = 8.0) -> None:
        if not 0 <= min_tokens <= max_tokens or per_tokens <= 0:
            raise ValueError("length needs 0 <= min_tokens <= max_tokens and per_tokens > 0")
        self.min_tokens, self.max_tokens, self.per_tokens = min_tokens, max_tokens, per_tokens

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Scores ``(B,)`` in (-inf, 0]."""
        count = np.asarray(batch.num_tokens, dtype=np.float64)
        outside = np.maximum(self.min_tokens - count, 0.0) + np.maximum(count - self.max_tokens, 0.0)
        return RewardOutput(-outside / self.per_tokens)


class RepetitionReward:
    """Minus the share of word n-grams that repeat an earlier one of the same completion."""

    name = "repetition"
    scale = "-1 (one n-gram over and over) to 0 (no n-gram twice)"
    may_be_constant = True
    background = True

    def __init__(self, *, ngram: int = 3) -> None:
        if ngram < 1:
            raise ValueError("repetition needs ngram >= 1")
        self.ngram = ngram

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Scores ``(B,)`` in [-1, 0]; completions shorter than the n-gram score 0."""
        return RewardOutput(
            np.asarray([-self._repeated(text) for text in batch.completions], dtype=np.float64)
        )

    def _repeated(self, text: str) -> float:
        words = tokenize(text)
        grams = Counter(tuple(words[i : i + self.ngram]) for i in range(len(words) - self.ngram + 1))
        total = sum(grams.values())
        return (total - len(grams)) / total if total else 0.0


class BadEndingReward:
    """-1 where a completion is empty, was cut, or ends in a word that ends no sentence.

    Answers of one word ("on", "the") are sound, so the term applies to captions alone.
    """

    name = "bad_ending"
    scale = "-1 (broken ending) or 0"
    may_be_constant = True
    background = True

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Scores ``(B,)`` of -1 or 0; VQA rows are not applicable."""
        applicable = np.asarray([row.task == "caption" for row in batch.rows], dtype=bool)
        scores = np.full(len(batch), np.nan, dtype=np.float64)
        for index in np.flatnonzero(applicable).tolist():
            words = tokenize(batch.completions[index])
            broken = not batch.ended[index] or not words or words[-1] in BAD_ENDINGS
            scores[index] = -1.0 if broken else 0.0
        return RewardOutput(scores, applicable=applicable)
