"""Answers scored by the rule of their benchmark: VQA accuracy by any named rule, yes/no questions as POPE does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.intervals import Indices, Statistic

__all__ = ["YES_NO_SCORES", "answer_accuracy", "rule_of", "yes_no_statistic"]

YES_NO_SCORES = ("yes_no_f1", "yes_no_precision", "yes_no_recall", "yes_ratio")
_YES_NO = {"yes_no": "official", "yes_no_exact": "exact"}


def rule_of(annotation: Mapping[str, Any]) -> str:
    """The rule that an annotation row of an evaluation names; ``official`` by default."""
    return str(annotation.get("rule", "official"))


def answer_accuracy(answer: str, annotation: Mapping[str, Any]) -> float:
    """Accuracy of an answer, 0 to 100, by the rule of its annotation; yes/no questions are right or wrong."""
    from toolkit.metrics.pope import said
    from toolkit.metrics.vqa import vqa_accuracy

    rule = rule_of(annotation)
    if rule in _YES_NO:
        return 100.0 * (said(answer, _YES_NO[rule]) == _label(annotation))
    return vqa_accuracy(answer, annotation["answers"], rule)


def yes_no_statistic(
    annotations: Sequence[Mapping[str, Any]], answers: Mapping[Any, str], units: Sequence[Any]
) -> Statistic | None:
    """F1, precision and recall of "yes" and the share of yes, 0 to 1, of resampled ``units`` (image ids).

    None where there are no yes/no questions. A ratio without a denominator is 0, as in POPE.
    """
    from toolkit.metrics.pope import said

    rows = [row for row in annotations if rule_of(row) in _YES_NO]
    if not rows:
        return None
    place = {unit: number for number, unit in enumerate(units)}
    counts: NDArray[np.float64] = np.zeros((len(units), 4))  # hits, said yes, should be yes, questions
    for row in rows:
        yes = said(answers[row["question_id"]], _YES_NO[rule_of(row)]) == "yes"
        wanted = _label(row) == "yes"
        counts[place[row["image_id"]]] += (yes and wanted, yes, wanted, 1)

    def statistic(indices: Indices) -> dict[str, float]:
        hits, positive, true, total = counts[indices].sum(axis=0).tolist()
        precision, recall = _ratio(hits, positive), _ratio(hits, true)
        f1 = _ratio(2 * precision * recall, precision + recall)
        return dict(zip(YES_NO_SCORES, (f1, precision, recall, _ratio(positive, total)), strict=True))

    return statistic


def _label(annotation: Mapping[str, Any]) -> str:
    first = annotation["answers"][0]
    return str(first["answer"] if isinstance(first, Mapping) else first).strip().lower()


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
