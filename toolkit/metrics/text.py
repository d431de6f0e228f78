"""Captions as the words that n-gram metrics count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from toolkit.errors import DataError
from toolkit.metrics.tokenizer import tokenize

__all__ = ["check_references", "check_texts", "metric_words"]


def metric_words(captions: Iterable[str]) -> Iterator[list[str]]:
    """The words of each caption that BLEU and CIDEr count, one caption at a time.

    pycocoevalcap joins a caption's tokens with blanks and splits them again at any white space, so that a token
    with a no-break space inside (``1 1/2``) becomes two words.
    """
    return (" ".join(tokenize(caption)).split() for caption in captions)


def check_texts(where: str, rows: Iterable[tuple[Any, object]], kind: str = "image") -> None:
    """Refuse captions or answers that are no text (None, NaN, a list …).

    Raises:
        DataError: the id of each is named, after ``kind``.
    """
    problems = [
        f"{kind} {row_id!r}: expected text, found {text!r:.80}"
        for row_id, text in rows
        if not isinstance(text, str)
    ]
    if problems:
        raise DataError(where, problems)


def check_references(references: Mapping[Any, Sequence[str]]) -> None:
    """Refuse images without a reference, and references that are no text.

    Raises:
        DataError: the id of each is named.
    """
    problems = []
    for image_id, captions in references.items():
        if isinstance(captions, str) or not isinstance(captions, Sequence):
            problems.append(f"image {image_id!r}: expected a list of captions, found {captions!r:.80}")
        elif not captions:
            problems.append(f"image {image_id!r} has no reference caption")
        else:
            wrong = [caption for caption in captions if not isinstance(caption, str)]
            problems += [f"image {image_id!r}: expected text, found {caption!r:.80}" for caption in wrong]
    if problems:
        raise DataError("references", problems)
