"""VQA accuracy: the official soft accuracy of VQA v2 (Antol et al., 2015) and the named rules of other tools.

An answer counts as right as far as annotators gave it: the mean, over the annotators left out one by one, of
``min(1, others who agree / 3)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.errors import DataError, UsageError
from toolkit.metrics.text import check_texts
from toolkit.metrics.vqa_text import clean, normalise_answer, pythia_normalise, vlmevalkit_normalise

__all__ = ["VQA_RULES", "VqaScores", "normalise_answer", "score_vqa", "vqa_accuracy"]

Annotator = str | Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VqaScores:
    """Accuracies in percent, rounded to two decimals as the official tool does.

    Attributes:
        accuracy: of all questions.
        per_answer_type: ``yes/no``, ``number``, ``other`` … to accuracy; ``none`` where an annotation has no type.
        per_question_type: question type to accuracy, likewise.
        per_question: question id to accuracy.
        rule: which rule made these numbers.
    """

    accuracy: float
    per_answer_type: dict[str, float]
    per_question_type: dict[str, float]
    per_question: dict[Any, float]
    rule: str

    @property
    def num_questions(self) -> int:
        """How many questions were scored."""
        return len(self.per_question)


def vqa_accuracy(answer: str, annotators: Sequence[Annotator], rule: str = "official") -> float:
    """Accuracy of one answer, 0 to 100, not rounded.

    Args:
        answer: the text to score.
        annotators: the human answers, usually ten: plain text, or mappings with a key ``answer`` as in the official
            files. Under ``official`` and ``lmms`` equal mappings are left out together, as the official code
            compares mappings; plain answers are told apart by their place.
        rule: ``official``; ``index`` (official, annotators told apart by place); ``lmms`` (lmms-eval's VQAv2:
            always normalised); ``textvqa`` (lmms-eval's TextVQA and VizWiz); ``vlmevalkit``; ``vizwiz`` (VizWiz's
            evaluator: only the prediction normalised); ``simple`` (a third for each annotator, lower case);
            ``exact`` (GQA: equal to an answer, but for case).

    Raises:
        DataError: there is no annotator.
        UsageError: an unknown rule.
    """
    if rule not in _RULES:
        raise UsageError(f"unknown VQA rule {rule!r}; known are {', '.join(VQA_RULES)}")
    if not annotators:
        raise DataError("annotators", "a question needs at least one answer to score against")
    return 100.0 * _RULES[rule](answer, annotators)


def score_vqa(
    questions: Rows,
    annotations: Rows,
    results: Mapping[Any, str] | Sequence[Mapping[str, Any]],
    rule: str = "official",
) -> VqaScores:
    """Score answers with the content of the official question and annotation files.

    Args:
        questions: rows with ``question_id``, or an object with such rows under ``questions``; each needs an answer
            and an annotation.
        annotations: rows with ``question_id``, ``answers`` (mappings with ``answer``, or text), and if known
            ``answer_type`` and ``question_type``, or an object with such rows under ``annotations``. Rows of other
            questions are ignored.
        results: exactly one answer for each question: question id to answer, or rows ``question_id``, ``answer``.
        rule: see ``vqa_accuracy``.

    Raises:
        DataError: an id is missing, repeated or unknown, or an answer is no text; each is named.
        UsageError: an unknown rule.
    """
    if rule not in _RULES:
        raise UsageError(f"unknown VQA rule {rule!r}; known are {', '.join(VQA_RULES)}")
    answers = _answers(results)
    check_texts("VQA results", answers.items(), "question")
    by_id = _by_question(_rows(questions, "questions"), _rows(annotations, "annotations"), answers)
    accuracies: dict[Any, float] = {}
    answer_types: dict[str, list[float]] = {}
    question_types: dict[str, list[float]] = {}
    for question_id, annotation in by_id.items():
        accuracy = _RULES[rule](answers[question_id], annotation["answers"])
        accuracies[question_id] = accuracy
        answer_types.setdefault(str(annotation.get("answer_type", "none")), []).append(accuracy)
        question_types.setdefault(str(annotation.get("question_type", "none")), []).append(accuracy)
    return VqaScores(
        accuracy=_percent(list(accuracies.values())),
        per_answer_type={name: _percent(values) for name, values in answer_types.items()},
        per_question_type={name: _percent(values) for name, values in question_types.items()},
        per_question={question_id: round(100 * value, 2) for question_id, value in accuracies.items()},
        rule=rule,
    )


def _percent(values: Sequence[float]) -> float:
    return round(100 * float(sum(values)) / len(values), 2)


def _rows(rows: Rows, key: str) -> Sequence[Mapping[str, Any]]:
    return rows[key] if isinstance(rows, Mapping) else rows


def _answers(results: Mapping[Any, str] | Sequence[Mapping[str, Any]]) -> Mapping[Any, str]:
    if isinstance(results, Mapping):
        return results
    answers: dict[Any, str] = {}
    problems = []
    for number, row in enumerate(results, start=1):
        if "question_id" not in row or "answer" not in row:
            problems.append(f"row {number}: expected an object with question_id, answer")
            continue
        if row["question_id"] in answers:
            problems.append(f"question {row['question_id']!r} is answered twice")
        answers[row["question_id"]] = row["answer"]
    if problems:
        raise DataError("VQA results", problems)
    return answers


def _by_question(
    questions: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    results: Mapping[Any, str],
) -> dict[Any, Mapping[str, Any]]:
    """The annotation of every question, in the order of the results, as the official tool goes through them."""
    asked: set[Any] = set()
    problems = []
    for question in questions:
        if question["question_id"] in asked:
            problems.append(f"question {question['question_id']!r} comes twice in the questions")
        asked.add(question["question_id"])
    annotated: dict[Any, Mapping[str, Any]] = {}
    for annotation in annotations:
        if annotation["question_id"] in annotated:
            problems.append(f"question {annotation['question_id']!r} is annotated twice")
        annotated[annotation["question_id"]] = annotation
    problems += [
        f"question {question_id!r} has no annotation" for question_id in asked if question_id not in annotated
    ]
    problems += [
        f"question {question_id!r} has no answer in the results"
        for question_id in asked
        if question_id not in results
    ]
    problems += [
        f"answer to unknown question {question_id!r}" for question_id in results if question_id not in asked
    ]
    for question_id in asked & annotated.keys():
        annotators = annotated[question_id].get("answers")
        if not annotators:
            problems.append(f"question {question_id!r} has no annotator")
        elif not all(map(_is_annotator, annotators)):
            problems.append(
                f"question {question_id!r}: expected answers that are text, or objects with answer"
            )
    if problems or not asked:
        raise DataError("VQA results", problems or ["there are no questions"])
    return {question_id: annotated[question_id] for question_id in results}


def _is_annotator(annotator: object) -> bool:
    return isinstance(annotator, str) or (isinstance(annotator, Mapping) and "answer" in annotator)


def _text(annotator: Annotator) -> str:
    return annotator if isinstance(annotator, str) else str(annotator["answer"])


def _mean_agreement(answer: str, texts: Sequence[str], same: Callable[[int, int], bool]) -> float:
    """Mean over annotators i of min(1, matches among those j for which ``same(i, j)`` is false, over 3)."""
    matches = [place for place, text in enumerate(texts) if text == answer]
    if not matches:
        return 0.0
    shares = [min(1.0, sum(not same(i, j) for j in matches) / 3) for i in range(len(texts))]
    return float(sum(shares)) / len(shares)


def _same_place(first: int, second: int) -> bool:
    return first == second


def _same_mapping(annotators: Sequence[Annotator], texts: Sequence[str]) -> Callable[[int, int], bool]:
    """The official comparison: two annotators are one if all their fields are equal, the rewritten answer included."""
    if any(isinstance(annotator, str) for annotator in annotators):
        return _same_place
    rows = [
        {**annotator, "answer": text}  # type: ignore[dict-item]
        for annotator, text in zip(annotators, texts, strict=True)
    ]
    return lambda first, second: bool(rows[first] == rows[second])


def _official(
    answer: str, annotators: Sequence[Annotator], *, always: bool = False, by_place: bool = False
) -> float:
    answer = clean(answer)
    texts = [clean(_text(annotator)) for annotator in annotators]
    if always or len(set(texts)) > 1:
        answer = normalise_answer(answer)
        texts = [normalise_answer(text) for text in texts]
    return _mean_agreement(answer, texts, _same_place if by_place else _same_mapping(annotators, texts))


def _index(answer: str, annotators: Sequence[Annotator]) -> float:
    return _official(answer, annotators, by_place=True)


def _lmms(answer: str, annotators: Sequence[Annotator]) -> float:
    return _official(answer, annotators, always=True)


def _textvqa(answer: str, annotators: Sequence[Annotator]) -> float:
    texts = [pythia_normalise(_text(annotator)) for annotator in annotators]
    return _mean_agreement(pythia_normalise(answer), texts, _same_place)


def _vlmevalkit(answer: str, annotators: Sequence[Annotator]) -> float:
    texts = [vlmevalkit_normalise(_text(annotator)) for annotator in annotators]
    return _mean_agreement(vlmevalkit_normalise(answer), texts, _same_place)


def _vizwiz(answer: str, annotators: Sequence[Annotator]) -> float:
    texts = [_text(annotator) for annotator in annotators]
    return _mean_agreement(normalise_answer(clean(answer)), texts, _same_place)


def _simple(answer: str, annotators: Sequence[Annotator]) -> float:
    matches = sum(_text(annotator).lower().strip() == answer.lower().strip() for annotator in annotators)
    return min(1.0, matches / 3)


def _exact(answer: str, annotators: Sequence[Annotator]) -> float:
    return float(any(_text(annotator).strip().lower() == answer.strip().lower() for annotator in annotators))


_RULES: dict[str, Callable[[str, Sequence[Annotator]], float]] = {
    "official": _official,
    "index": _index,
    "lmms": _lmms,
    "textvqa": _textvqa,
    "vlmevalkit": _vlmevalkit,
    "vizwiz": _vizwiz,
    "simple": _simple,
    "exact": _exact,
}
VQA_RULES = tuple(_RULES)
