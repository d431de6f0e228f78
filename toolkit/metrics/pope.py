"""POPE (Li et al., 2023): does a model say yes to objects that are not in the image?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.errors import DataError, UsageError
from toolkit.metrics.text import check_texts

__all__ = ["POPE_RULES", "said", "score_pope"]

POPE_RULES = ("official", "exact")


def score_pope(
    labels: Mapping[Any, str], answers: Mapping[Any, str], rule: str = "official"
) -> dict[str, float]:
    """Score yes/no answers; "yes" is the positive class.

    Args:
        labels: question id to ``yes`` or ``no``.
        answers: question id to the model's text, one for each question.
        rule: ``official`` reads the first sentence and takes any ``no`` or ``not`` for a no and all else for a
            yes; ``exact`` (lmms-eval) compares the whole text in lower case, so that ``yes.`` is neither.

    Returns:
        ``num_questions``, and from 0 to 1 ``accuracy``, ``precision``, ``recall``, ``f1`` and ``yes_ratio``;
        a ratio without a denominator is 0.

    Raises:
        DataError: an answer is missing, unknown or no text, or a label is neither yes nor no; ids are named.
        UsageError: an unknown rule.
    """
    if rule not in POPE_RULES:
        raise UsageError(f"unknown POPE rule {rule!r}; known are {', '.join(POPE_RULES)}")
    _check(labels, answers)
    check_texts("POPE results", answers.items(), "question")
    read = {question_id: said(text, rule) for question_id, text in answers.items()}
    positive = {question_id for question_id, text in read.items() if text == "yes"}
    right = sum(read[question_id] == label.lower() for question_id, label in labels.items())
    hits = sum(labels[question_id].lower() == "yes" for question_id in positive)
    true = sum(label.lower() == "yes" for label in labels.values())
    precision, recall = _ratio(hits, len(positive)), _ratio(hits, true)
    return {
        "num_questions": len(labels),
        "accuracy": _ratio(right, len(labels)),
        "precision": precision,
        "recall": recall,
        "f1": _ratio(2 * precision * recall, precision + recall),
        "yes_ratio": _ratio(len(positive), len(labels)),
    }


def said(text: str, rule: str = "official") -> str:
    """``yes`` or ``no``, as ``rule`` reads the text; under ``exact`` the text itself in small letters."""
    if rule == "exact":
        return text.lower()
    words = text.partition(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _check(labels: Mapping[Any, str], answers: Mapping[Any, str]) -> None:
    problems = [
        f"question {question_id!r}: label {label!r} is neither yes nor no"
        for question_id, label in labels.items()
        if str(label).lower() not in ("yes", "no")
    ]
    problems += [
        f"question {question_id!r} has no answer" for question_id in labels if question_id not in answers
    ]
    problems += [
        f"answer to unknown question {question_id!r}" for question_id in answers if question_id not in labels
    ]
    if problems or not labels:
        raise DataError("POPE results", problems or ["there are no questions"])
