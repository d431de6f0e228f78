"""Rows that say what a score is worth: what can be had without looking, and what people reach.

* ``blind``: the better of a constant text and a trained system that sees another row's picture. Captions: the
  constant is the training reference (test reference where no training file is given) with the highest mean
  CIDEr-D against the references of other images. Answers: the constant is the one answer with the highest
  accuracy on the split itself, an upper bound of every constant answer.
* ``human`` captions: image number ``k`` (in file order) is captioned by its reference number ``k mod R`` and
  scored against its other ``R - 1``. Systems are scored against all ``R``. CIDEr-D averages over references, so the
  two compare; BLEU and ROUGE-L take the best reference and so put people at a small disadvantage.
* ``human`` answers: question number ``k`` is answered by its annotator ``k mod A`` and scored by the official rule
  against the other ``A - 1``.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from toolkit.errors import DataError
from toolkit.evaluation.split import Id
from toolkit.records import PromptRow

__all__ = [
    "constant_answer",
    "constant_caption",
    "leave_one_answer_out",
    "leave_one_reference_out",
    "shuffled_images",
]

_logger = logging.getLogger("vlm_rlhf.evaluation")
_CANDIDATES = 192
_FIRST_IMAGES, _SECOND_IMAGES, _FINALISTS = 64, 400, 16


def shuffled_images(rows: Sequence[PromptRow], *, seed: int = 0) -> list[PromptRow]:
    """The same rows, each with the picture of another image; rows of one image share the wrong picture.

    A random cycle through all images (Sattolo 1986), so that no image keeps its own.

    Raises:
        DataError: fewer than two images.
    """
    pictures = {row.image_id: row.images for row in rows}
    ids = list(pictures)
    if len(ids) < 2:
        raise DataError("shuffled images", f"{len(ids)} image, expected at least 2", remedy="drop blind_from")
    order = np.random.default_rng(seed).permutation(len(ids))
    partner = {ids[order[k]]: ids[order[(k + 1) % len(ids)]] for k in range(len(ids))}
    return [dataclasses.replace(row, images=pictures[partner[row.image_id]]) for row in rows]


def constant_caption(references: Mapping[Id, Sequence[str]], *, seed: int = 0) -> str:
    """The reference caption that describes all images best: highest mean CIDEr-D over images.

    Candidates are the most frequent captions and a random draw, 192 together; all of them are scored on 64
    images, the best 16 on 400.
    """
    from toolkit.metrics import CiderD, DocumentFrequencies

    counts = Counter(caption for captions in references.values() for caption in captions)
    frequent = [caption for caption, _ in counts.most_common(_CANDIDATES // 2)]
    generator = np.random.default_rng(seed)
    others = sorted(set(counts) - set(frequent))
    drawn = generator.permutation(len(others))[: _CANDIDATES - len(frequent)]
    candidates = frequent + [others[index] for index in drawn]
    scorer = CiderD(references, frequencies=DocumentFrequencies.from_references(references))
    ids = list(references)
    shuffled = [ids[index] for index in generator.permutation(len(ids))]
    for images, kept in ((shuffled[:_FIRST_IMAGES], _FINALISTS), (shuffled[:_SECOND_IMAGES], 1)):
        scores = [float(scorer.score(images, [caption] * len(images)).mean()) for caption in candidates]
        candidates = [candidates[index] for index in np.argsort(scores, kind="stable")[::-1][:kept]]
    _logger.info("best constant caption: %r", candidates[0])
    return candidates[0]


def constant_answer(rows: Sequence[PromptRow]) -> str:
    """The one answer with the highest official accuracy over all questions."""
    from toolkit.metrics.vqa import vqa_accuracy

    votes: Counter[str] = Counter()
    for row in rows:
        for answer, count in Counter(row.answers).items():
            votes[answer] += min(count, 3)
    finalists = [answer for answer, _ in votes.most_common(8)]
    best = max(finalists, key=lambda answer: sum(vqa_accuracy(answer, row.answers) for row in rows))
    _logger.info("best constant answer: %r", best)
    return best


def leave_one_reference_out(rows: Sequence[PromptRow]) -> tuple[list[str], list[PromptRow]] | None:
    """Captions by people and the rows with the references that remain; None where an image has but one."""
    texts: list[str] = []
    remaining: list[PromptRow] = []
    for position, row in enumerate(rows):
        if len(row.references) < 2:
            return None
        text, others = _left_out(row.references, position)
        texts.append(text)
        remaining.append(dataclasses.replace(row, references=others))
    return (texts, remaining) if texts else None


def leave_one_answer_out(rows: Sequence[PromptRow]) -> tuple[list[str], list[PromptRow]] | None:
    """Answers by people and the rows with the annotators that remain; None where a question has fewer than five.

    Below five, the official accuracy (matches among the others, three of them for full marks) cannot reach 100.
    """
    answers: list[str] = []
    remaining: list[PromptRow] = []
    for position, row in enumerate(rows):
        if len(row.answers) < 5:
            return None
        answer, others = _left_out(row.answers, position)
        answers.append(answer)
        remaining.append(dataclasses.replace(row, answers=others))
    return (answers, remaining) if answers else None


def _left_out(texts: Sequence[str], position: int) -> tuple[str, tuple[str, ...]]:
    turn = position % len(texts)
    return texts[turn], tuple(text for number, text in enumerate(texts) if number != turn)
