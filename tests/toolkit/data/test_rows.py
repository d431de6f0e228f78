"""Rows in TRL's vocabulary, and every fault with its line."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.data.preferences import read_preference_rows
from toolkit.data.rows import read_prompt_rows, read_sft_rows
from toolkit.records import image_prompt

Jsonl = Callable[[Path, list[Any]], Path]
_PAIR = {"prompt": "Describe.", "images": ["a.png"], "chosen": "a cat", "rejected": "a dog"}


def test_prompt_rows(tmp_path: Path, jsonl: Jsonl) -> None:
    data = base64.b64encode(b"encoded picture").decode()
    path = jsonl(
        tmp_path / "prompts.jsonl",
        [
            {"prompt": "Describe.", "image": "images/a.png", "references": [" a cat "], "scene": 3},
            {
                "prompt": "Colour?",
                "images": [{"bytes": data}],
                "answers": ["red", ""],
                "sample_id": 7,
                "image_id": 12,
            },
            {"prompt": "Hello", "sample_id": "text"},
        ],
    )
    problems: list[str] = []
    (where, caption), (_, question), (_, text) = read_prompt_rows(path, problems)
    assert problems == []
    assert where == f"{path}:1"
    assert (caption.sample_id, caption.task, caption.image_id) == ("prompts:1", "caption", "images/a.png")
    assert caption.images == ((tmp_path / "images/a.png").resolve(),)
    assert (caption.prompt, caption.references) == (image_prompt("Describe."), ("a cat",))
    assert caption.meta == {"scene": 3}
    assert (question.sample_id, question.task, question.image_id) == ("7", "vqa", 12)
    assert (question.images, question.answers) == ((b"encoded picture",), ("red", ""))
    assert (text.images, text.image_id, text.references) == ((), "text", ())


def test_sft_and_preference_rows(tmp_path: Path, jsonl: Jsonl) -> None:
    sft = jsonl(
        tmp_path / "a.jsonl", [{"prompt": "Colour?", "image": "a.png", "completion": "red", "task": "vqa"}]
    )
    [(_, row)] = read_sft_rows(sft, [])
    assert (row.completion, row.task, row.sample_id) == ("red", "vqa", "a:1")
    answer = [{"role": "assistant", "content": "a cat"}]
    pairs = jsonl(tmp_path / "b.jsonl", [_PAIR | {"chosen": answer, "margin": 2, "source": "people"}, _PAIR])
    (_, first), (_, second) = read_preference_rows(pairs, [])
    assert (first.chosen, first.rejected, first.margin, first.source) == ("a cat", "a dog", 2.0, "people")
    assert (second.margin, second.source, second.task) == (None, "unknown", "caption")


def test_an_empty_rejected_completion_is_a_row(tmp_path: Path, jsonl: Jsonl) -> None:
    [(_, row)] = read_preference_rows(jsonl(tmp_path / "a.jsonl", [_PAIR | {"rejected": ""}]), [])
    assert row.rejected == ""


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rejected": " a cat "}, "'chosen' and 'rejected' are the same text 'a cat'; remove the row"),
        ({"chosen": " "}, "'chosen' is empty; expected the preferred completion"),
        ({"rejected": None}, "no 'rejected'; found the columns prompt, images, chosen, rejected"),
        ({"prompt": None}, "no 'prompt'; found the columns prompt, images, chosen, rejected"),
        ({"margin": float("nan")}, "'margin' is 'nan', expected a finite number of at least 0, or no margin"),
        ({"margin": float("inf")}, "'margin' is 'inf', expected a finite number of at least 0, or no margin"),
        ({"margin": "2"}, "'margin' is '2', expected a finite number of at least 0, or no margin"),
        ({"margin": -1}, "'margin' is '-1', expected a finite number of at least 0, or no margin"),
        ({"source": 3}, "'source' is '3', expected text"),
        ({"task": "poem"}, "'task' is 'poem', expected 'caption' or 'vqa'"),
        ({"sample_id": ""}, "'sample_id' is '', expected text"),
        ({"images": "a.png"}, "'images' is 'a.png', expected a list of paths"),
        ({"images": [5]}, "image '5': expected a path or {'bytes': base64}"),
        ({"images": [{"bytes": "%%"}]}, "image bytes are not base64"),
        ({"image": "b.png"}, "both 'image' and 'images'; expected one of them"),
        ({"images": ["/etc/a.png"]}, "picture '/etc/a.png': absolute path; expected a path inside"),
        ({"images": ["../a.png"]}, "picture '../a.png': '..' in the path; expected a path inside"),
        (
            {
                "prompt": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image"}]}],
                "images": [],
            },
            "1 image placeholders in the prompt for 0 images; expected as many",
        ),
    ],
)
def test_faulty_pairs(tmp_path: Path, jsonl: Jsonl, change: dict[str, Any], problem: str) -> None:
    path = jsonl(tmp_path / "pairs.jsonl", [_PAIR, _PAIR | change])
    problems: list[str] = []
    assert len(read_preference_rows(path, problems)) == 1
    [found] = problems
    assert found.startswith(f"{path}:2: {problem}")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"references": []}, "'references' is '[]', expected a list of at least one text"),
        ({"references": "a cat"}, "'references' is 'a cat', expected a list of at least one text"),
        ({"references": ["a cat", " "]}, "'references' holds an empty caption; write it or remove it"),
        ({"answers": ["", " "]}, "'answers' are all empty"),
        ({"answers": [1]}, "'answers' is '[1]', expected a list of at least one text"),
        ({"image_id": 1.5}, "'image_id' is '1.5', expected a number or text"),
    ],
)
def test_faulty_prompts(tmp_path: Path, jsonl: Jsonl, row: dict[str, Any], problem: str) -> None:
    path = jsonl(tmp_path / "prompts.jsonl", [{"prompt": "x"} | row])
    problems: list[str] = []
    assert read_prompt_rows(path, problems) == []
    assert problems == [f"{path}:1: {problem}"]


def test_faulty_completions(tmp_path: Path, jsonl: Jsonl) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"prompt": "x", "completion": "\n"}, _PAIR])
    problems: list[str] = []
    assert read_sft_rows(path, problems) == []
    assert problems == [
        f"{path}:1: 'completion' is empty; write it or remove the row",
        f"{path}:2: no 'completion'; found the columns prompt, images, chosen, rejected",
    ]


def test_malformed_lines_and_duplicate_ids_are_reported_together(tmp_path: Path, jsonl: Jsonl) -> None:
    rows = [
        _PAIR | {"sample_id": "p"},
        '{"prompt": ',
        _PAIR | {"sample_id": "p"},
        _PAIR | {"chosen": "a dog"},
    ]
    path = jsonl(tmp_path / "pairs.jsonl", rows)
    problems: list[str] = []
    assert len(read_preference_rows(path, problems)) == 1
    assert problems == [
        f"{path}:2: malformed JSON in column 12: Expecting value",
        f"{path}:3: duplicate sample_id 'p' (first in line 1)",
        f"{path}:4: 'chosen' and 'rejected' are the same text 'a dog'; remove the row",
    ]


def test_control_characters_are_escaped_in_messages(tmp_path: Path, jsonl: Jsonl) -> None:
    text = "a \x1b[31mred\u202e cat"
    problems: list[str] = []
    read_preference_rows(jsonl(tmp_path / "a.jsonl", [_PAIR | {"chosen": text, "rejected": text}]), problems)
    assert r"'a \x1b[31mred\u202e cat'" in problems[0]
