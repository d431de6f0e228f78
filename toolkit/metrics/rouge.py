"""ROUGE-L (Lin, 2004), equal to pycocoevalcap 1.2: an F-measure of the longest common subsequence of words."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from toolkit.metrics.ngrams import Integers
from toolkit.metrics.numbered import NumberedTokens

__all__ = ["longest_common_subsequence", "rouge_l", "rouge_l_of_all"]

_BETA = 1.2
_BITS = 64

Bits = npt.NDArray[np.uint64]


def rouge_l(candidate: Sequence[Hashable], references: Sequence[Sequence[Hashable]]) -> float:
    """ROUGE-L of the tokens of a caption against those of its references (at least one), 0 to 1.

    Precision and recall are each the best over the references, as pycocoevalcap takes them. An empty caption has one
    empty token there, so that an empty caption against an empty reference scores 1.
    """
    candidate = candidate or [""]
    places: dict[Hashable, int] = {}
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


def rouge_l_of_all(
    candidates: NumberedTokens, references: NumberedTokens, sizes: Integers
) -> npt.NDArray[np.float64]:
    """(N,) ROUGE-L of N captions; ``references`` are those of all images one after another, ``sizes`` (N,) of each.

    The numbers of ``rouge_l``, found for all pairs at once.
    """
    lengths, theirs = candidates.lengths, references.lengths
    images = np.repeat(np.arange(sizes.size), sizes)
    common = _common_of_all(candidates, references, lengths, theirs, images)
    starts = np.cumsum(sizes) - sizes
    for image in np.flatnonzero(lengths > _BITS).tolist():
        own = candidates.tokens(image)
        for place in range(starts[image], starts[image] + sizes[image]):
            common[place] = longest_common_subsequence(own, references.tokens(place))
    common[(lengths[images] == 0) & (theirs == 0)] = 1  # the empty token of both
    precision = np.maximum.reduceat(common, starts) / np.maximum(lengths, 1)
    recall = np.maximum.reduceat(common / np.maximum(theirs, 1), starts)
    scores = np.zeros(sizes.size)
    found = precision > 0
    precision, recall = precision[found], recall[found]
    scores[found] = (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)
    return scores


def longest_common_subsequence(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """How many tokens the two sequences share in the same order."""
    places: dict[Hashable, int] = {}
    for place, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << place
    return _common(places, len(first), second)


def _common(places: dict[Hashable, int], size: int, reference: Sequence[Hashable]) -> int:
    """Longest common subsequence with one bit a token (Hyyrö, 2004): ``places`` holds the bits of each token."""
    whole = (1 << size) - 1
    row = whole
    for hits in filter(None, map(places.get, reference)):
        taken = row & hits
        row = ((row + taken) | (row - taken)) & whole
    return size - row.bit_count()


def _common_of_all(
    candidates: NumberedTokens,
    references: NumberedTokens,
    lengths: Integers,
    theirs: Integers,
    images: Integers,
) -> Integers:
    """(R,) longest common subsequences of R references with the candidates of their ``images`` (R,).

    As ``_common``, one place of all references at a time. Candidates of more than 64 tokens are left at 0.
    """
    hits = _hits(candidates, references, lengths, np.repeat(images, theirs))
    longest_first = np.argsort(-theirs, kind="stable")
    starts = (np.cumsum(theirs) - theirs)[longest_first]
    going = np.searchsorted(
        -theirs[longest_first], -np.arange(int(theirs.max(initial=0)))
    )  # longer than a place
    row = np.full(theirs.size, ~np.uint64(0))
    for place, count in enumerate(going.tolist()):
        part = row[:count]
        taken = part & hits[starts[:count] + place]
        row[:count] = (part + taken) | (part - taken)
    common = np.zeros(theirs.size, dtype=np.int64)
    common[longest_first] = np.bitwise_count(~row)
    return common


def _hits(
    candidates: NumberedTokens, references: NumberedTokens, lengths: Integers, images: Integers
) -> Bits:
    """(T,) for each token of the references, at which places the candidate of its image (T,) has it, one bit each."""
    tokens, own = references.numbers, candidates.numbers
    short = np.where(lengths > _BITS, 0, lengths)
    starts = candidates.ends - lengths
    hits = np.zeros(tokens.size, dtype=np.uint64)
    for place in range(int(short.max(initial=0))):
        column = np.full(lengths.size, -1, dtype=np.int32)
        there = short > place
        column[there] = own[starts[there] + place]
        hits |= (column[images] == tokens).astype(np.uint64) << np.uint64(place)
    return hits
