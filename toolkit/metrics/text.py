"""Captions as the words that n-gram metrics count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from toolkit.metrics.tokenizer import tokenize

__all__ = ["metric_words"]


def metric_words(captions: Iterable[str]) -> Iterator[list[str]]:
    """The words of each caption that BLEU and CIDEr count, one caption at a time.

    pycocoevalcap joins a caption's tokens with blanks and splits them again at any white space, so that a token
    with a no-break space inside (``1 1/2``) becomes two words.
    """
    return (" ".join(tokenize(caption)).split() for caption in captions)
