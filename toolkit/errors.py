"""Errors meant for people: what is wrong, where, what was expected, what to do. Each carries its exit code.

Exit codes of every command: 0 ok, 1 the run failed, 2 recipe, usage or data wrong, 3 the environment lacks
something, 130/143 interrupted after a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = [
    "CheckpointError",
    "DataError",
    "EnvironmentLacking",
    "Interrupted",
    "RecipeError",
    "RunFailed",
    "ToolkitError",
    "UsageError",
]


class ToolkitError(Exception):
    """A problem a user can act on. The command line prints it without a traceback.

    Args:
        message: what is wrong and where (file, line, row, key), in one or more lines.
        remedy: what to do about it; printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors come back from worker processes, whatever the parameters of the subclass are.
        return _same_error, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}\n  remedy: {self.remedy}"


def _same_error(cls: type[ToolkitError], arguments: tuple[Any, ...], state: dict[str, Any]) -> ToolkitError:
    error = cls.__new__(cls, *arguments)
    error.__dict__.update(state)
    return error


class RunFailed(ToolkitError):
    """The run started and could not go on (exit code 1)."""


class UsageError(ToolkitError):
    """The command line is wrong (exit code 2)."""

    exit_code = 2


class _Problems(ToolkitError):
    """Several problems of one kind, reported together."""

    exit_code = 2
    shown = 20

    def __init__(self, where: str, problems: Iterable[str] | str, *, remedy: str | None = None) -> None:
        self.where = where
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        lines = [f"{where}: {count}", *(f"  {problem}" for problem in self.problems[: self.shown])]
        if len(self.problems) > self.shown:
            lines.append(f"  … and {len(self.problems) - self.shown} more")
        super().__init__("\n".join(lines), remedy=remedy)


class RecipeError(_Problems):
    """A recipe is wrong (exit code 2): every problem at once, each with line, dotted key, expected and found."""


class DataError(_Problems):
    """A data file is wrong (exit code 2): every problem at once, each with its line or row."""


class CheckpointError(ToolkitError):
    """A directory is not the checkpoint that was expected, or does not fit the recipe (exit code 2)."""

    exit_code = 2


class EnvironmentLacking(ToolkitError):
    """Something the command needs is not installed or not present on this machine (exit code 3)."""

    exit_code = 3


class Interrupted(ToolkitError):
    """A signal ended the run after a checkpoint was written (exit code 130 for Ctrl-C, 143 for SIGTERM)."""

    def __init__(self, message: str, *, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code
