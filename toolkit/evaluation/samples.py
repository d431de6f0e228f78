"""``samples/``: pictures of the test split with what every system says about them, for the report and for people."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.data.images import load_image
from toolkit.evaluation.scoring import SystemScores
from toolkit.evaluation.split import Id, TestSplit, prompt_text, question_id
from toolkit.records import PromptRow
from toolkit.runs.atomic import atomic_directory
from toolkit.runs.metrics import json_safe

__all__ = ["write_samples"]

_COUNT = 48
_QUESTIONS_AN_IMAGE = 3
_MAX_SIDE = 320
_SCORES = ("cider", "reward", "gold")


def write_samples(
    folder: Path, split: TestSplit, systems: Mapping[str, SystemScores], *, count: int = _COUNT
) -> None:
    """Write ``samples.json`` and one picture a sample (at most 320 pixels a side) to ``folder``, atomically.

    Samples are the ``count`` images whose ids hash lowest: the same for every run on a split, and not chosen.
    """
    rows = _images(split)
    chosen = sorted(rows, key=lambda identity: hashlib.sha1(str(identity).encode()).hexdigest())[:count]
    tables = {name: _Tables(scores) for name, scores in systems.items()}
    with atomic_directory(folder) as temporary:
        samples = []
        for number, identity in enumerate(chosen):
            name = f"{number:03d}.png"
            image = load_image(rows[identity].images[0])
            image.thumbnail((_MAX_SIDE, _MAX_SIDE))
            image.save(temporary / name)
            samples.append(_sample(identity, name, split, tables))
        text = json.dumps(json_safe(samples), indent=1, ensure_ascii=False) + "\n"
        (temporary / "samples.json").write_text(text, encoding="utf-8")


class _Tables:
    """Positions of images and questions in a system's columns."""

    def __init__(self, scores: SystemScores) -> None:
        self.captions = scores.captions
        self.vqa = scores.vqa
        ids: Sequence[Id] = scores.captions.image_ids if scores.captions else ()
        self.images = {identity: position for position, identity in enumerate(ids)}
        questions: Sequence[Id] = scores.vqa.question_ids if scores.vqa else ()
        self.questions = {identity: position for position, identity in enumerate(questions)}

    def caption(self, identity: Id) -> dict[str, Any]:
        if self.captions is None or identity not in self.images:
            return {}
        position = self.images[identity]
        columns = self.captions.columns
        scores = {name: round(float(columns[name][position]), 4) for name in _SCORES if name in columns}
        return {"caption": self.captions.captions[position], "scores": scores}

    def answer(self, identity: Id) -> dict[str, Any]:
        if self.vqa is None or identity not in self.questions:
            return {}
        position = self.questions[identity]
        return {"answer": self.vqa.answers[position], "accuracy": float(self.vqa.accuracies[position])}


def _images(split: TestSplit) -> dict[Id, PromptRow]:
    rows: dict[Id, PromptRow] = {}
    for row in split.rows:
        if row.images:
            rows.setdefault(row.image_id, row)
    return rows


def _sample(identity: Id, image: str, split: TestSplit, tables: Mapping[str, _Tables]) -> dict[str, Any]:
    references = next((list(row.references) for row in split.captions if row.image_id == identity), [])
    questions = [row for row in split.questions if row.image_id == identity][:_QUESTIONS_AN_IMAGE]
    said = {name: table.caption(identity) for name, table in tables.items()}
    return {
        "image_id": identity,
        "image": image,
        "references": references,
        "systems": {name: entry for name, entry in said.items() if entry},
        "questions": [_question(row, tables) for row in questions],
    }


def _question(row: PromptRow, tables: Mapping[str, _Tables]) -> dict[str, Any]:
    answers = {name: table.answer(question_id(row)) for name, table in tables.items()}
    common = [f"{answer} ×{count}" for answer, count in Counter(row.answers).most_common(3)]
    return {
        "question": str(row.meta.get("question", prompt_text(row.prompt))),
        "answer": ", ".join(common),
        "systems": {name: entry for name, entry in answers.items() if entry},
    }
