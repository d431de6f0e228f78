"""Errors of data files name the file and the line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.data.files import escaped, is_id, read_json, read_jsonl, shown

Problems = Callable[[Callable[[], Any]], list[str]]


def test_escaped_and_shown() -> None:
    assert escaped("a\nb\x1b[0m\u202eé — 日本\ud800") == r"a\nb\x1b[0m\u202eé — 日本\ud800"
    assert shown("x" * 100) == f"'{'x' * 59}…'"
    assert shown(None) == "'None'"


def test_is_id() -> None:
    assert [is_id(value) for value in (0, "a", "", True, None, 1.5, [])] == [True, True, False, *[False] * 4]


@pytest.mark.parametrize("suffix", ["json", "json.gz"])
def test_read_json(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    data = b"\xef\xbb\xbf" + json.dumps({"a": [1, "é"]}).encode()
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    assert read_json(path) == {"a": [1, "é"]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"a": 1,\n "b": }', "a.json:2: malformed JSON in column 7: Expecting value"),
        (b'{"a": 1,\n "\xff": 2}', "a.json:2: not UTF-8 text (byte 11 of the file)"),
        (b'{"a": 1, "a\\u0007": 1, "a": 2}', "a.json: repeated key 'a'"),
        (b"[" * 200_000, "a.json: JSON nested too deeply"),
        (b"", "a.json:1: malformed JSON"),
    ],
)
def test_malformed_json(tmp_path: Path, problems_of: Problems, content: bytes, problem: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    [found] = problems_of(lambda: read_json(tmp_path / "a.json"))
    assert problem in found


def test_unreadable_files(tmp_path: Path, problems_of: Problems) -> None:
    whole = gzip.compress(b'{"a": "' + bytes(range(97, 120)) * 9 + b'"}')
    (tmp_path / "cut.json.gz").write_bytes(whole[:-12])
    (tmp_path / "plain.json.gz").write_bytes(b"{}")
    (tmp_path / "dir.json").mkdir()
    for name, problem in (
        ("none.json", "none.json: no such file"),
        ("cut.json.gz", "cut.json.gz: damaged gzip file"),
        ("plain.json.gz", "plain.json.gz: damaged gzip file"),
        ("dir.json", "dir.json: is a folder, expected a file"),
        ("a\0.json", r"a\x00.json: cannot be read"),
    ):
        assert problem in problems_of(lambda name=name: read_json(tmp_path / name))[0]


def test_every_malformed_line_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": \n[1]\n{"\xff": 1}\n{"a": 1, "a": 2}\n{"a": "last"}')
    problems: list[str] = []
    assert read_jsonl(path, problems) == [(1, {"a": 1}), (7, {"a": "last"})]
    assert problems == [
        f"{path}:3: malformed JSON in column 7: Expecting value",
        f"{path}:4: expected a JSON object, found list '[1]'",
        f"{path}:5: not UTF-8 text (byte 2 of the line)",
        f"{path}:6: repeated key 'a'",
    ]


def test_line_separators_inside_text_do_not_split_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress('{"a": "x\u2028y\x85z"}\n'.encode()))
    assert read_jsonl(path, []) == [(1, {"a": "x\u2028y\x85z"})]
