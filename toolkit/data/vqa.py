"""Questions and annotations in the official VQA format, and the pictures their image ids stand for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.data.files import escaped, is_id, read_json, shown
from toolkit.errors import DataError

__all__ = ["ImageFinder", "VqaItem", "most_frequent_answer", "read_vqa"]


@dataclass(frozen=True, slots=True)
class VqaItem:
    """A question with its annotators' answers (at least one, usually ten, as written).

    ``file_name`` is the picture where the files name it, else None (see :class:`ImageFinder`). ``meta`` holds
    ``question_id`` and, where given, ``question_type`` and ``answer_type``.
    """

    question_id: int | str
    image_id: int | str
    file_name: str | None
    question: str
    answers: tuple[str, ...]
    meta: Mapping[str, Any]
    where: str


def read_vqa(questions: Path, annotations: Path, problems: list[str]) -> list[VqaItem]:
    """The questions in the order of their file, joined with their annotations by ``question_id``.

    Faulty entries are described in ``problems`` and left out: a repeated id, an empty question, a question
    without annotation (and the reverse), an image id that differs between the two, an annotation without answers.
    Annotators may leave an answer empty, but not all of them.

    Raises:
        DataError: a file as a whole cannot be read or is not in the format.
    """
    asked, names = _read(questions, "questions")
    answered, more_names = _read(annotations, "annotations")
    names |= more_names
    by_id = _by_question_id(annotations, answered, "annotation", problems)
    items = []
    for question_id, (where, entry) in _by_question_id(questions, asked, "question", problems).items():
        annotation = by_id.pop(question_id, None)
        if annotation is None:
            problems.append(f"{where}: no annotation in {escaped(annotations)}")
            continue
        item = _item(question_id, entry, annotation[1], where, names, problems)
        if item is not None:
            items.append(item)
    problems.extend(f"{where}: no such question in {escaped(questions)}" for where, _ in by_id.values())
    return items


def most_frequent_answer(answers: Iterable[str]) -> str:
    """The answer most annotators gave, stripped; the first of equally frequent ones; empty ones do not count."""
    counts = Counter(text for answer in answers if (text := answer.strip()))
    return counts.most_common(1)[0][0]


class ImageFinder:
    """Pictures of a folder by the image ids of a VQA file, which names no files.

    An id stands for the file with that stem (``n01``) or whose name ends in that number (``42.png``,
    ``COCO_val2014_000000000042.jpg``). The folder is listed once, on first need.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, list[str]] | None = None

    def find(self, image_id: int | str) -> str:
        """The name of the picture inside the folder.

        Raises:
            DataError: no file, or more than one, for this id.
        """
        if self._names is None:
            self._names = self._listed()
        names = self._names.get(str(image_id), [])
        if len(names) == 1:
            return names[0]
        found = f"{len(names)} files ({', '.join(sorted(map(escaped, names))[:3])})" if names else "no file"
        raise DataError(
            escaped(self._folder),
            f"{found} in {escaped(self._folder)} for image id {shown(image_id)}; expected one picture named by it",
            remedy="name the picture by its id, or give 'file_name' with each question",
        )

    def _listed(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        if not self._folder.is_dir():
            raise DataError(escaped(self._folder), f"{escaped(self._folder)}: no such folder of pictures")
        for path in sorted(self._folder.iterdir()):
            number = re.search(r"(\d+)$", path.stem)
            keys = {path.stem, path.name} | ({str(int(number.group(1)))} if number else set())
            for key in keys:
                names.setdefault(key, []).append(path.name)
        return names


def _read(path: Path, key: str) -> tuple[list[Any], dict[Any, str]]:
    """The list under ``key`` and the file names of an optional COCO-like ``images`` list."""
    value = read_json(path)
    if not isinstance(value, dict) or not isinstance(value.get(key), list):
        raise DataError(
            escaped(path),
            f"{escaped(path)}: not a VQA {key} file: expected an object with a list '{key}'",
            remedy="give the official questions file and the official annotations file",
        )
    images = value.get("images")
    named = [entry for entry in images if isinstance(entry, dict)] if isinstance(images, list) else []
    return value[key], {entry.get("id"): entry["file_name"] for entry in named if "file_name" in entry}


def _by_question_id(
    path: Path, entries: list[Any], kind: str, problems: list[str]
) -> dict[int | str, tuple[str, Mapping[str, Any]]]:
    found: dict[int | str, tuple[str, Mapping[str, Any]]] = {}
    for number, entry in enumerate(entries, start=1):
        question_id = entry.get("question_id") if isinstance(entry, dict) else None
        if not is_id(question_id):
            problems.append(f"{escaped(path)}: {kind} {number}: no 'question_id'")
        elif question_id in found:
            problems.append(f"{escaped(path)}: {kind} {number}: duplicate question id {shown(question_id)}")
        else:
            found[question_id] = (f"{escaped(path)}: {kind} id {escaped(question_id)}", entry)
    return found


def _item(
    question_id: int | str,
    question: Mapping[str, Any],
    annotation: Mapping[str, Any],
    where: str,
    names: Mapping[Any, str],
    problems: list[str],
) -> VqaItem | None:
    text, image_id = question.get("question"), question.get("image_id")
    wrong = []
    if not isinstance(text, str) or not text.strip():
        wrong.append("the question is empty")
    if not is_id(image_id):
        wrong.append(f"'image_id' is {shown(image_id)}, expected a number or text")
    elif (other := annotation.get("image_id", image_id)) != image_id:
        wrong.append(f"image id {shown(image_id)}, but {shown(other)} in its annotation")
    answers = _answers(annotation)
    if not any(answer.strip() for answer in answers):
        wrong.append("annotation without answers; add one or remove the question")
    problems.extend(f"{where}: {problem}" for problem in wrong)
    if wrong or not isinstance(text, str) or not is_id(image_id):
        return None
    types = {key: annotation[key] for key in ("question_type", "answer_type") if key in annotation}
    name = question.get("file_name", question.get("image", names.get(image_id)))
    return VqaItem(
        question_id, image_id, name, text.strip(), answers, {"question_id": question_id, **types}, where
    )


def _answers(annotation: Mapping[str, Any]) -> tuple[str, ...]:
    answers = annotation.get("answers")
    if not isinstance(answers, list):
        return ()
    texts = [answer.get("answer") if isinstance(answer, dict) else answer for answer in answers]
    return tuple(text for text in texts if isinstance(text, str))
