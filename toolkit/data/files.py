"""JSON and JSON-lines files, plain or gzipped, with errors that name the file and the line."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any, TypeGuard

from toolkit.errors import DataError

__all__ = ["escaped", "is_id", "read_json", "read_jsonl", "shown"]


class _RepeatedKey(ValueError):
    """A JSON object names the same key twice; ``json`` itself would silently keep the last."""


def escaped(text: object) -> str:
    r"""``text`` with every control or unprintable character as an escape (``\n``, ``\x1b``, ``\u202e``)."""
    characters = (c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))
    return "".join(characters)


def shown(text: object, *, limit: int = 60) -> str:
    """``text`` quoted for a message: unprintable characters escaped, cut to ``limit`` characters."""
    plain = escaped(text)
    return f"'{plain}'" if len(plain) <= limit else f"'{plain[: limit - 1]}…'"


def is_id(value: object) -> TypeGuard[int | str]:
    """Whether a JSON value can name a picture or a sample: a whole number or non-empty text."""
    return isinstance(value, int | str) and not isinstance(value, bool) and value != ""


def read_json(path: Path) -> Any:
    """The value in a ``.json`` or ``.json.gz`` file.

    Raises:
        DataError: the file is missing, damaged, not UTF-8, not JSON (with line and column) or repeats a key.
    """
    text = _decoded(path, _content(path))
    try:
        return _parsed(text)
    except json.JSONDecodeError as error:
        problem = f"{escaped(path)}:{error.lineno}: malformed JSON in column {error.colno}: {error.msg}"
        raise DataError(escaped(path), problem, remedy="export the file again") from None
    except _RepeatedKey as error:
        problem = f"{escaped(path)}: repeated key {error}: only one of the two entries would be used"
        raise DataError(escaped(path), problem, remedy="merge or rename the repeated entries") from None
    except RecursionError:
        raise DataError(escaped(path), f"{escaped(path)}: JSON nested too deeply") from None


def read_jsonl(path: Path, problems: list[str]) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a ``.jsonl`` or ``.jsonl.gz`` file with their line numbers; blank lines hold no row.

    A line that is not one JSON object is appended to ``problems`` as ``file:line: …`` and left out, so that
    the caller can report it together with what is wrong in other lines.

    Raises:
        DataError: the file is missing or damaged as a whole.
    """
    rows = []
    for number, line in enumerate(_content(path).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append((number, _object(line, first=number == 1)))
        except ValueError as error:
            problems.append(f"{escaped(path)}:{number}: {error}")
    return rows


def _object(line: bytes, *, first: bool) -> dict[str, Any]:
    """One line as a dict; ValueError says what else it is."""
    try:
        value = _parsed(line.decode("utf-8-sig" if first else "utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"malformed JSON in column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start} of the line)") from None
    except _RepeatedKey as error:
        raise ValueError(f"repeated key {error}") from None
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__} {shown(line.decode())}")
    return value


def _content(path: Path) -> bytes:
    """The bytes of the file, unpacked when its name ends in .gz."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except FileNotFoundError:
        problem, remedy = (
            f"{escaped(path)}: no such file",
            "check the path; in a recipe it is relative to data.root",
        )
    except IsADirectoryError:
        problem, remedy = f"{escaped(path)}: is a folder, expected a file", "name the file inside it"
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        problem, remedy = f"{escaped(path)}: damaged gzip file ({error})", "copy or download it again"
    except (OSError, ValueError) as error:
        problem, remedy = (
            f"{escaped(path)}: cannot be read ({escaped(error)})",
            "check the path and its permissions",
        )
    raise DataError(escaped(path), problem, remedy=remedy)


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = f"{escaped(path)}:{line}: not UTF-8 text (byte {error.start} of the file)"
        raise DataError(escaped(path), problem, remedy="convert the file to UTF-8") from None


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedKey(shown(key))
            seen.add(key)
    return made
