"""Fixtures made with the official tools and kept in the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def official() -> dict[str, Any]:
    """Twelve images, their captions, and pycocoevalcap's scores."""
    content: dict[str, Any] = json.loads(
        (FIXTURES / "official_caption_scores.json").read_text(encoding="utf-8")
    )
    return content


@pytest.fixture(scope="session")
def ptb_pairs() -> list[dict[str, str]]:
    """Strings and what the original tokenizer and filter make of them, each alone."""
    lines = (FIXTURES / "ptb_pairs.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]
