"""Captions as numbers of their tokens, all in one pass: what a whole evaluation counts with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from toolkit.metrics.ngrams import Indices, Integers
from toolkit.metrics.tokenizer import (
    DependsOnNeighbours,
    stretch_tokens,
    tokens_in_context,
    tokens_of_hanging_lines,
)

__all__ = ["NumberedTokens", "TokenNumbers"]


@dataclass(frozen=True, slots=True)
class NumberedTokens:
    """The tokens of B captions one after another: ``numbers`` of T tokens, and where each caption ``ends`` (B)."""

    numbers: Indices
    ends: Integers

    @property
    def lengths(self) -> Integers:
        """(B,) tokens of each caption."""
        return np.diff(self.ends, prepend=0)

    def tokens(self, place: int) -> list[int]:
        """The numbers of one caption."""
        first = self.ends[place - 1] if place else 0
        numbers: list[int] = self.numbers[first : self.ends[place]].tolist()
        return numbers


class TokenNumbers:
    """Numbers tokens: those of ``known`` as it says, others from ``first`` upwards in the order they come."""

    def __init__(self, known: Mapping[str, int], first: int) -> None:
        self._numbers = _Numbers(known, first)
        self._stretches = _StretchNumbers(self._numbers.__getitem__)

    @property
    def end(self) -> int:
        """The next number that no token has."""
        return self._numbers.end

    def of(self, captions: Iterable[str]) -> NumberedTokens:
        """The tokens of ``captions``, each tokenized alone."""
        return self._of(captions, {})

    def of_lines(self, captions: Sequence[str]) -> NumberedTokens:
        """The tokens of ``captions`` as lines of one file, as ``tokenize_lines`` has them."""
        return self._of(captions, tokens_of_hanging_lines(captions))

    def words(self, tokens: NumberedTokens) -> tuple[Indices, Integers]:
        """Numbers (T,) of the words that BLEU and CIDEr count, and how many words (B,) a caption has.

        They are the tokens, but that pycocoevalcap splits a token with white space inside (``1 1/2``).
        """
        numbers, ends = tokens.numbers, tokens.ends
        split = {
            number: [self._numbers[word] for word in token.split()]
            for token, number in list(self._numbers.items())
            if token.split() != [token]
        }
        if split:
            widths = np.ones(numbers.size + 1, dtype=np.int64)
            widths[0] = 0
            for number, own in split.items():
                widths[1:][numbers == number] = len(own)
            ends = np.cumsum(widths)[ends]
            pieces = (split.get(number) or (number,) for number in tokens.numbers.tolist())
            numbers = np.fromiter(chain.from_iterable(pieces), dtype=np.int32)
        return numbers, np.diff(ends, prepend=0)

    def _of(self, captions: Iterable[str], given: Mapping[int, Sequence[str]]) -> NumberedTokens:
        number, of_stretch = self._numbers.__getitem__, self._stretches.__getitem__
        numbers: list[int] = []
        ends: list[int] = []
        for place, caption in enumerate(captions):
            try:
                if place in given:
                    numbers.extend(map(number, given[place]))
                else:
                    numbers.extend(chain.from_iterable(map(of_stretch, caption.split(" "))))
            except DependsOnNeighbours:
                del numbers[ends[-1] if ends else 0 :]
                numbers.extend(map(number, tokens_in_context(caption)))
            ends.append(len(numbers))
        return NumberedTokens(np.array(numbers, dtype=np.int32), np.array(ends, dtype=np.int64))


class _Numbers(dict[str, int]):
    def __init__(self, known: Mapping[str, int], first: int) -> None:
        super().__init__()
        self._known = known
        self.end = first

    def __missing__(self, token: str) -> int:
        number = self._known.get(token)
        if number is None:
            number, self.end = self.end, self.end + 1
        self[token] = number
        return number


class _StretchNumbers(dict[str, tuple[int, ...]]):
    """The numbers of the tokens of a stretch between blanks."""

    def __init__(self, number: Callable[[str], int]) -> None:
        super().__init__()
        self._number = number

    def __missing__(self, stretch: str) -> tuple[int, ...]:
        numbers = self[stretch] = tuple(map(self._number, stretch_tokens[stretch]))
        return numbers
