"""ROUGE-L (Lin, 2004), equal to pycocoevalcap 1.2: an F-measure of the longest common subsequence of words."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["longest_common_subsequence", "rouge_l"]

_BETA = 1.2


def rouge_l(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L of the tokens of a caption against those of its references (at least one), 0 to 1.

    Precision and recall are each the best over the references, as pycocoevalcap takes them. An empty caption has one
    empty token there, so that an empty caption against an empty reference scores 1.
    """
    candidate = candidate or [""]
    places: dict[str, int] = {}
    for place, token in enumerate(candidate):
        places[token] = places.get(token, 0) | 1 << place
    precision = recall = 0.0
    for reference in references:
        reference = reference or [""]
        common = _common(places, len(candidate), reference)
        precision = max(precision, common / len(candidate))
        recall = max(recall, common / len(reference))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """How many tokens the two sequences share in the same order."""
    places: dict[str, int] = {}
    for place, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << place
    return _common(places, len(first), second)


def _common(places: dict[str, int], size: int, reference: Sequence[str]) -> int:
    """Longest common subsequence with one bit a token (Hyyrö, 2004): ``places`` holds the bits of each token."""
    whole = (1 << size) - 1
    row = whole
    for hits in filter(None, map(places.get, reference)):
        taken = row & hits
        row = ((row + taken) | (row - taken)) & whole
    return size - row.bit_count()
