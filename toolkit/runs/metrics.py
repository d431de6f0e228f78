"""``metrics.jsonl``: one JSON object a line, each with its ``step``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import DataError
from toolkit.runs.atomic import atomic_write_text

__all__ = ["MetricsLog", "json_safe", "read_metrics"]


class MetricsLog:
    """Appends lines to a metrics file; every line is on its way to the disk when ``write`` returns.

    Args:
        path: the file; created with the first line.
        enabled: ``False`` on every process but the main one: nothing is written.
    """

    def __init__(self, path: str | Path, *, enabled: bool = True) -> None:
        self.path = Path(path)
        self.enabled = enabled

    def write(self, step: int, /, **values: Any) -> None:
        """Append ``{"step": step, **values}``. NaN and infinities become ``null``; numpy and torch scalars, numbers."""
        if not self.enabled:
            return
        line = json.dumps({"step": int(step), **json_safe(values)}, ensure_ascii=False, allow_nan=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()

    def truncate_after(self, step: int) -> int:
        """Drop lines of later steps, and a last line cut short by a kill; returns how many lines were dropped.

        Called on resume from the checkpoint of ``step``, so that no step is logged twice.
        """
        if not self.enabled or not self.path.exists():
            return 0
        kept: list[str] = []
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in lines:
            record = _record(line)
            if record is not None and record["step"] <= step:
                kept.append(line)
        if len(kept) < len(lines):
            atomic_write_text(self.path, "".join(line + "\n" for line in kept))
        return len(lines) - len(kept)

    def read(self) -> list[dict[str, Any]]:
        """Every complete line, in order; an empty list when there is no file."""
        return read_metrics(self.path) if self.path.exists() else []


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The records of a metrics file. A last line cut short by a kill is ignored.

    Raises:
        DataError: a line before the last is no JSON object with a ``step``.
    """
    path = Path(path)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        record = _record(line)
        if record is not None:
            records.append(record)
        elif number < len(lines):
            raise DataError(
                str(path), f"{path}:{number}  expected a JSON object with a step, found {line[:60]!r}"
            )
    return records


def json_safe(value: Any) -> Any:
    """``value`` as JSON knows it: NaN and infinities become ``None``, array scalars numbers, paths text."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes):
        return [json_safe(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars, torch tensors
        return json_safe(value.tolist())
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None
