from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import DataError
from toolkit.runs.metrics import MetricsLog, json_safe, read_metrics


def test_lines_are_json_without_nan(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    log.write(
        1, loss=0.5, nan=float("nan"), inf=np.float32("inf"), array=np.array([1.0, np.nan]), path=tmp_path
    )
    log.write(2, loss=np.float32(0.25), flag=True, text="ü\n")
    lines = log.path.read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {
        "step": 1,
        "loss": 0.5,
        "nan": None,
        "inf": None,
        "array": [1.0, None],
        "path": str(tmp_path),
    }
    assert json.loads(lines[1]) == {"step": 2, "loss": 0.25, "flag": True, "text": "ü\n"}


def test_a_value_called_step_cannot_hide_the_step(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(3, loss=1.0)
    assert log.read() == [{"step": 3, "loss": 1.0}]


def test_resume_drops_later_lines_and_a_torn_one(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 2, 3):
        log.write(step, loss=float(step))
    with log.path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [record["step"] for record in log.read()] == [1, 2, 2, 3]
    assert log.truncate_after(2) == 2
    log.write(3, loss=3.5)
    assert [record["step"] for record in log.read()] == [1, 2, 2, 3]
    assert log.truncate_after(3) == 0


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", enabled=False)
    log.write(1, loss=1.0)
    assert log.truncate_after(0) == 0
    assert not log.path.exists()
    assert log.read() == []


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nbroken\n{"step": 2}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2 "):
        read_metrics(path)


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        json_safe({"a": object()})
