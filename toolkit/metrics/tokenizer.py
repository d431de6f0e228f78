"""Penn Treebank tokens of a caption, as pycocoevalcap makes them, without Java."""

from __future__ import annotations

from functools import lru_cache

from toolkit.metrics.ptb import lex

__all__ = ["TOKENIZER", "tokenize"]

TOKENIZER = "ptb-3.4.1/1"
"""Names the tokens in every file made from them; the number after the slash grows when tokens change."""

# Compared after lower-casing, so that the capital spellings of brackets never match: brackets stay, as officially.
_PUNCTUATION = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())


def tokenize(caption: str) -> list[str]:
    """The lower-case tokens of one caption, punctuation dropped; ``[]`` when nothing is left.

    Equal to ``PTBTokenizer`` of pycocoevalcap 1.2 for a caption tokenized alone; a token may hold a no-break
    space where the tokenizer joins a number and its fraction.
    """
    return list(_tokens(caption))


@lru_cache(maxsize=65536)
def _tokens(caption: str) -> tuple[str, ...]:
    lowered = (token.lower() for token in lex(caption))
    return tuple(token for token in lowered if token not in _PUNCTUATION)
