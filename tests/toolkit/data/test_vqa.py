"""Questions and annotations joined, pictures found by their ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.data.vqa import ImageFinder, most_frequent_answer, read_vqa


def _read(tmp_path: Path, questions: Any, annotations: Any) -> tuple[list[Any], list[str]]:
    (tmp_path / "q.json").write_text(json.dumps(questions))
    (tmp_path / "a.json").write_text(json.dumps(annotations))
    problems: list[str] = []
    items = read_vqa(tmp_path / "q.json", tmp_path / "a.json", problems)
    return items, [problem.replace(f"{tmp_path}/", "") for problem in problems]


def _annotation(question_id: int, image_id: int, *answers: str, **more: Any) -> dict[str, Any]:
    return {
        "question_id": question_id,
        "image_id": image_id,
        "answers": [
            {"answer": answer, "answer_id": i, "answer_confidence": "yes"} for i, answer in enumerate(answers)
        ],
        **more,
    }


def test_joined_in_the_order_of_the_questions(tmp_path: Path) -> None:
    questions = [
        {"question_id": 11, "image_id": 1, "question": " what colour? "},
        {"question_id": 10, "image_id": 2, "question": "how many?", "file_name": "two.png"},
    ]
    annotations = [
        _annotation(10, 2, "2", "two", "2", answer_type="number", question_type="how many"),
        _annotation(11, 1, "red", ""),
    ]
    items, problems = _read(tmp_path, {"questions": questions}, {"annotations": annotations})
    assert problems == []
    assert [(item.question_id, item.question, item.answers, item.file_name) for item in items] == [
        (11, "what colour?", ("red", ""), None),
        (10, "how many?", ("2", "two", "2"), "two.png"),
    ]
    assert items[0].meta == {"question_id": 11}
    assert items[1].meta == {"question_id": 10, "answer_type": "number", "question_type": "how many"}


def test_file_names_of_an_images_list(tmp_path: Path) -> None:
    questions = {
        "images": [{"id": 1, "file_name": "one.png"}],
        "questions": [{"question_id": 1, "image_id": 1, "question": "?"}],
    }
    items, _ = _read(tmp_path, questions, {"annotations": [_annotation(1, 1, "yes")]})
    assert items[0].file_name == "one.png"


def test_every_fault_is_reported(tmp_path: Path) -> None:
    questions = [
        {"question_id": 1, "image_id": 1, "question": "  "},
        {"question_id": 2, "image_id": 1, "question": "no annotation?"},
        {"question_id": 2, "image_id": 1, "question": "again?"},
        {"image_id": 1, "question": "no id?"},
        {"question_id": 3, "image_id": 1, "question": "other image?"},
        {"question_id": 4, "image_id": 1, "question": "no answers?"},
        {"question_id": 5, "image_id": None, "question": "no image?"},
    ]
    annotations = [
        _annotation(1, 1, "a"),
        _annotation(3, 7, "a"),
        _annotation(4, 1, "", " "),
        {"question_id": 5, "answers": ["plain text"]},
        _annotation(6, 1, "a"),
    ]
    items, problems = _read(tmp_path, {"questions": questions}, {"annotations": annotations})
    assert items == []
    assert problems == [
        "q.json: question 3: duplicate question id '2'",
        "q.json: question 4: no 'question_id'",
        "q.json: question id 1: the question is empty",
        "q.json: question id 2: no annotation in a.json",
        "q.json: question id 3: image id '1', but '7' in its annotation",
        "q.json: question id 4: annotation without answers; add one or remove the question",
        "q.json: question id 5: 'image_id' is 'None', expected a number or text",
        "a.json: annotation id 6: no such question in q.json",
    ]


def test_other_files_are_refused(tmp_path: Path, problems_of: Callable[..., list[str]]) -> None:
    for asked, answered, kind in (
        ([], {"annotations": []}, "questions"),
        ({"questions": []}, {}, "annotations"),
    ):
        [problem] = problems_of(lambda q=asked, a=answered: _read(tmp_path, q, a))
        assert f"not a VQA {kind} file: expected an object with a list '{kind}'" in problem


def test_most_frequent_answer() -> None:
    assert most_frequent_answer(["red", "blue ", "blue", "red", "green"]) == "red"
    assert most_frequent_answer(["", "", "one"]) == "one"


def test_pictures_by_id(tmp_path: Path, problems_of: Callable[..., list[str]]) -> None:
    for name in ("COCO_val2014_000000000042.jpg", "7.png", "n01.webp", "0008_a.png", "12.png", "x12.png"):
        (tmp_path / name).touch()
    finder = ImageFinder(tmp_path)
    assert finder.find(42) == "COCO_val2014_000000000042.jpg"
    assert finder.find(7) == finder.find("7") == "7.png"
    assert finder.find("n01") == finder.find("n01.webp") == "n01.webp"
    assert "2 files (12.png, x12.png) in" in problems_of(lambda: finder.find(12))[0]
    assert f"no file in {tmp_path} for image id '8'" in problems_of(lambda: finder.find(8))[0]
    assert "no such folder of pictures" in problems_of(lambda: ImageFinder(tmp_path / "none").find(1))[0]


@pytest.mark.parametrize(
    ("name", "questions"), [("textvqa_val", 2560), ("vizwiz_val", 2190), ("vqav2_vs_val", 16471)]
)
def test_public_files(shared_data: Path, name: str, questions: int) -> None:
    problems: list[str] = []
    files = [shared_data / f"vqa/{name}_{kind}.json.gz" for kind in ("questions", "annotations")]
    items = read_vqa(*files, problems)
    assert problems == []
    assert len(items) == questions
    assert {len(item.answers) for item in items} == {10}
