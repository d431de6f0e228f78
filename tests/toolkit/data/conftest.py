"""Small pictures and data files for the tests of this folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from toolkit.errors import DataError


@pytest.fixture
def picture() -> Callable[..., Path]:
    """Write a picture of one colour and return its path."""

    def write(
        path: Path, colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (8, 6)
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(path)
        return path

    return write


@pytest.fixture
def jsonl() -> Callable[[Path, Iterable[Any]], Path]:
    """Write JSON lines and return their path; a string is written as it is."""

    def write(path: Path, rows: Iterable[Any]) -> Path:
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def problems_of() -> Callable[[Callable[[], Any]], list[str]]:
    """Call a function that must raise DataError and return its problems."""

    def call(function: Callable[[], Any]) -> list[str]:
        with pytest.raises(DataError) as caught:
            function()
        assert caught.value.exit_code == 2
        return caught.value.problems

    return call
