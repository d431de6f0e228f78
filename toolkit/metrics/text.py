"""Captions as the words that n-gram metrics count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from toolkit.metrics.tokenizer import tokenize

__all__ = ["metric_words", "split_tokens"]


def metric_words(captions: Iterable[str]) -> Iterator[list[str]]:
    """The words of each caption that BLEU and CIDEr count, one caption at a time."""
    return (" ".join(tokenize(caption)).split() for caption in captions)


def split_tokens(captions: Sequence[Sequence[str]]) -> list[list[str]]:
    """The words that BLEU and CIDEr count in captions already tokenized.

    pycocoevalcap joins a caption's tokens with blanks and splits them again at any white space, so that a token
    with a no-break space inside (``1 1/2``) becomes two words.
    """
    return [" ".join(tokens).split() for tokens in captions]
