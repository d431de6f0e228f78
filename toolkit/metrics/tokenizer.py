"""Penn Treebank tokens of a caption, as pycocoevalcap makes them, without Java."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

from toolkit.metrics.ptb import lex
from toolkit.metrics.ptb.abbreviations import (
    BEFORE_NUMBERS,
    CAPITALISED,
    FINAL,
    TITLES,
    UNCAPITALISED_FINAL,
    UNCAPITALISED_TITLES,
)

__all__ = [
    "TOKENIZER",
    "DependsOnNeighbours",
    "stretch_tokens",
    "tokenize",
    "tokenize_lines",
    "tokens_in_context",
    "tokens_of_hanging_lines",
]

TOKENIZER = "ptb-3.4.1/3"
"""Names the tokens in every file made from them; the number after the slash grows when tokens change."""

# Compared after lower-casing, so that the capital spellings of brackets never match: brackets stay, as officially.
_PUNCTUATION = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())

# A stretch between blanks whose tokens no neighbour can change …
_PLAIN = re.compile(r"[A-Za-z.,!?;:'\"-]+")
# … unless it ends like this: a letter that ends a sentence or not, an abbreviation that a number must follow. Behind an
# apostrophe either can begin in the middle of letters ("'emb.").
_LOOKS_AHEAD = re.compile(
    rf"(?:^|.*[^A-Za-z]|.*'[A-Za-z]+)(?:[A-Za-z]?|(?i:{'|'.join(sorted(BEFORE_NUMBERS))}))\."
)
# Most stretches are a word, perhaps with a comma or period: no rule splits those but the ones named.
_ONE_WORD = re.compile(r"([A-Za-z]{2,})[.,]?")
_NOT_ONE_WORD = (
    frozenset("cannot gonna gotta wanna lemme gimme".split())
    | (FINAL | TITLES | UNCAPITALISED_FINAL | UNCAPITALISED_TITLES | CAPITALISED | BEFORE_NUMBERS)
)  # fmt: skip
_STRETCH = re.compile(r"[^ \t\n\r\f\v]+")
_KEPT_STRETCHES = 1 << 15

_ENDS_IN_A_LETTER = re.compile(r".*(?:^|[^A-Za-z])[A-Za-z]\.[\s'\"]*", re.DOTALL)


class DependsOnNeighbours(LookupError):
    """A stretch between blanks cannot be tokenized alone."""


class _Stretches(dict[str, tuple[str, ...]]):
    """The tokens of stretches between blanks, learnt when first seen and kept for the next time."""

    def __missing__(self, stretch: str) -> tuple[str, ...]:
        word = _ONE_WORD.fullmatch(stretch)
        if word is not None and (only := word[1].lower()) not in _NOT_ONE_WORD:
            tokens: tuple[str, ...] = (only,)
        elif not stretch or (_PLAIN.fullmatch(stretch) and not _LOOKS_AHEAD.fullmatch(stretch)):
            tokens = tuple(_kept(lex(stretch)))
        else:
            raise DependsOnNeighbours
        if len(self) >= _KEPT_STRETCHES:
            self.clear()
        self[stretch] = tokens
        return tokens


stretch_tokens = _Stretches()
"""The tokens of a stretch between blanks; raises ``DependsOnNeighbours`` for some."""


def tokenize(caption: str) -> list[str]:
    """The lower-case tokens of one caption, punctuation dropped; ``[]`` when nothing is left.

    Equal to ``PTBTokenizer`` of pycocoevalcap 1.2 for a caption tokenized alone. A token may hold a no-break space
    where the tokenizer joins a number and its fraction. Line breaks are blanks.
    """
    return list(_tokens(caption))


def tokenize_lines(captions: Sequence[str]) -> list[list[str]]:
    """The tokens of captions that are lines of one file, as pycocoevalcap hands references to its tokenizer.

    There the first word of the next line decides whether a letter and a period at the end of a line are an initial
    or the end of a sentence (``Avenue S.`` before ``A street``). All other captions come out as from ``tokenize``.
    """
    hanging = tokens_of_hanging_lines(captions)
    return [hanging[place] if place in hanging else tokenize(text) for place, text in enumerate(captions)]


def tokens_of_hanging_lines(captions: Sequence[str]) -> dict[int, list[str]]:
    """Tokens of those lines of a file that hang on the next line, by their place."""
    tokens = {}
    for place, caption in enumerate(captions[:-1]):
        # Cheap tests first: most captions end in a letter, or in the period of a word.
        last, before = caption[-1:], caption[-3:-2]
        if last.isalpha() or (last == "." and before.isascii() and before.isalpha()):
            continue
        line = caption.replace("\n", " ")
        if _ENDS_IN_A_LETTER.fullmatch(line):
            following = "\n".join(text.replace("\n", " ") for text in captions[place + 1 : place + 3])
            tokens[place] = _kept(lex(f"{line}\n{following}\n", len(line)))
    return tokens


@lru_cache(maxsize=4096)
def _tokens(caption: str) -> tuple[str, ...]:
    try:
        return tuple(chain.from_iterable(map(stretch_tokens.__getitem__, caption.split(" "))))
    except DependsOnNeighbours:
        return tuple(tokens_in_context(caption))


def tokens_in_context(caption: str) -> list[str]:
    """Tokens of a caption where some stretches depend on others: those are lexed together, the rest is looked up."""
    if "<" in caption:  # markup spans blanks
        return _kept_at_the_end(lex(caption.replace("\n", " ")))
    caption = caption.replace("\n", " ") + "\n"  # some rules look at the blank behind a word
    tokens: list[str] = []
    first = last = -1  # of the stretches waiting to be lexed together
    for match in _STRETCH.finditer(caption):
        try:
            known = stretch_tokens[match.group()]
        except DependsOnNeighbours:
            first, last = (match.start() if first < 0 else first), match.end()
            continue
        if first >= 0:
            tokens += _kept(lex(caption[first : match.end() + 1], last - first))
            first = -1
        tokens += known
    if first >= 0:
        tokens += _kept_at_the_end(lex(caption[first:], last - first))
    return tokens


def _kept_at_the_end(tokens: list[str]) -> list[str]:
    """As ``_kept``, of a line's last tokens: pycocoevalcap strips the line, and with it the end of an address."""
    if tokens:
        tokens[-1] = tokens[-1].rstrip()
    return _kept(tokens)


def _kept(tokens: list[str]) -> list[str]:
    return [token for token in map(str.lower, tokens) if token not in _PUNCTUATION]
