"""A test split as the evaluation sees it: caption rows, question rows, and the official reference files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import DataError
from toolkit.records import Conversation, PromptRow

__all__ = ["Id", "TestSplit", "prompt_text", "question_id"]

Id = int | str


def question_id(row: PromptRow) -> Id:
    """The official id of a question: ``meta["question_id"]``, else the row's ``sample_id``."""
    found: Id = row.meta.get("question_id", row.sample_id)
    return found


def prompt_text(prompt: Conversation) -> str:
    """The words of a prompt, without its pictures; messages and blocks on lines of their own."""
    texts: list[str] = []
    for message in prompt:
        content = message["content"]
        if isinstance(content, str):
            texts.append(content)
        else:
            texts += [str(block["text"]) for block in content if block.get("type") == "text"]
    return "\n".join(texts)


@dataclass(frozen=True, slots=True)
class TestSplit:
    """Rows to decode and to score. One caption row an image; any number of questions an image."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    captions: tuple[PromptRow, ...]
    questions: tuple[PromptRow, ...]

    @classmethod
    def from_rows(cls, rows: Sequence[PromptRow], *, where: str) -> TestSplit:
        """Split rows by task and check what scoring needs.

        Raises:
            DataError: no row, an image captioned twice, a repeated question id, a row without references or
                answers; every problem at once.
        """
        captions = tuple(row for row in rows if row.task == "caption")
        questions = tuple(row for row in rows if row.task == "vqa")
        problems = ["no rows: expected captions or questions to answer"] if not rows else []
        for image_id, count in Counter(row.image_id for row in captions).items():
            if count > 1:
                problems.append(f"image {image_id!r} has {count} caption rows, expected one")
        for identity, count in Counter(question_id(row) for row in questions).items():
            if count > 1:
                problems.append(f"question {identity!r} appears {count} times, expected once")
        problems += [f"{row.sample_id}: no reference caption" for row in captions if not row.references]
        problems += [f"{row.sample_id}: no annotators' answers" for row in questions if not row.answers]
        if problems:
            raise DataError(where, problems, remedy="evaluate on a split that has references for every row")
        return cls(captions=captions, questions=questions)

    @property
    def rows(self) -> tuple[PromptRow, ...]:
        """All rows, captions first."""
        return self.captions + self.questions

    @property
    def references(self) -> dict[Id, list[str]]:
        """Reference captions by image id."""
        return {row.image_id: list(row.references) for row in self.captions}

    def questions_file(self) -> dict[str, Any]:
        """The questions in the official VQA v2 format."""
        rows = [
            {"question_id": question_id(row), "image_id": row.image_id, "question": _question(row)}
            for row in self.questions
        ]
        return {"questions": rows}

    def annotations_file(self) -> dict[str, Any]:
        """The annotations in the official VQA v2 format."""
        return {"annotations": [_annotation(row, row.answers) for row in self.questions]}

    def write(self, folder: Path) -> None:
        """Write ``references.json``, ``questions.json`` and ``annotations.json``, those that have rows.

        With them an evaluation folder can be scored and compared again without its data.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if self.captions:
            rows = [{"image_id": row.image_id, "captions": list(row.references)} for row in self.captions]
            _write_json(folder / "references.json", rows)
        if self.questions:
            _write_json(folder / "questions.json", self.questions_file())
            _write_json(folder / "annotations.json", self.annotations_file())


def _annotation(row: PromptRow, answers: Sequence[str]) -> dict[str, Any]:
    rule = {"rule": row.meta["rule"]} if "rule" in row.meta else {}
    return {
        "question_id": question_id(row),
        "image_id": row.image_id,
        **rule,
        "question_type": row.meta.get("question_type", "none"),
        "answer_type": row.meta.get("answer_type", "other"),
        "multiple_choice_answer": Counter(answers).most_common(1)[0][0],
        "answers": [
            {"answer_id": number, "answer": answer, "answer_confidence": "yes"}
            for number, answer in enumerate(answers, start=1)
        ],
    }


def _question(row: PromptRow) -> str:
    return str(row.meta["question"]) if "question" in row.meta else prompt_text(row.prompt)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")
