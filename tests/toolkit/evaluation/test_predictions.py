"""The file of decoded completions survives a kill at any byte and never answers another question."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.evaluation.predictions import Prediction, PredictionFile

ROWS = [Prediction(f"row/{number}", f"a caption {number} – ünï\ncode", 4, True) for number in range(3)]


def test_round_trip_and_append(tmp_path: Path) -> None:
    file = PredictionFile(tmp_path / "sub" / "predictions.jsonl", {"checkpoint": "a"})
    assert file.read() == {}
    file.keep([])
    file.append(ROWS[:2])
    file.append(ROWS[2:])
    assert list(file.read().values()) == ROWS


def test_a_file_torn_at_any_byte_gives_whole_lines_only(tmp_path: Path) -> None:
    file = PredictionFile(tmp_path / "predictions.jsonl", {})
    file.keep(ROWS)
    raw = file.path.read_bytes()
    for cut in range(len(raw)):
        file.path.write_bytes(raw[:cut])
        found = list(file.read().values())
        assert found == ROWS[: len(found)]


def test_another_header_starts_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    PredictionFile(tmp_path / "predictions.jsonl", {"weights": "1"}).keep(ROWS)
    assert PredictionFile(tmp_path / "predictions.jsonl", {"weights": "2"}).read() == {}
    assert "another checkpoint" in caplog.text


def test_the_end_token_is_no_content() -> None:
    assert Prediction("a", "x", 5, True).content_tokens == 4
    assert Prediction("a", "x", 5, False).content_tokens == 5
