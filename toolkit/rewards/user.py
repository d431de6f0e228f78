"""Rewards written by the user: ``package.module:function`` or ``path/to/file.py:function``.

The function has TRL's own signature, so that one file serves TRL's trainers and this loop::

    def fn(prompts, completions, completion_ids, **columns) -> list[float | None]

``completions`` are conversations of one assistant message, as TRL passes them for conversational data.
``columns`` are the row's fields (``sample_id, image_id, task, images, references, answers`` and every key of
the row's ``meta``), one list entry a completion. ``None`` means the reward does not apply to that row;
``NaN`` means it failed there.

A function that may run in another thread, while the model computes (it asks a service, say, and needs no signal, event
loop or device of the main thread), says so with an attribute: ``fn.background = True``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import math
import reprlib
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np

from toolkit.config.messages import suggestion
from toolkit.config.reward_checks import TAKEN_ARGUMENTS
from toolkit.errors import EnvironmentLacking, RecipeError, RunFailed, ToolkitError
from toolkit.rewards.base import RewardBatch, RewardOutput, columns_of
from toolkit.runs.memory import ran_out_of_memory

__all__ = ["UserReward", "load_function"]

UserFunction = Callable[..., Sequence[float | None]]

_SIGNATURE = "fn(prompts, completions, completion_ids, **columns) -> list[float | None]"


def load_function(location: str) -> UserFunction:
    """The function at ``module:function`` or ``file.py:function``.

    Raises:
        RecipeError: no such file, module or function, it is not callable, or its file cannot be executed.
        EnvironmentLacking: the file or module imports a library that is not installed.
    """
    place, _, name = location.rpartition(":")
    where = f"reward term {location!r}"
    if not place or not name.isidentifier():
        raise RecipeError(where, "expected 'package.module:function' or 'path/to/file.py:function'")
    module = _module_from_file(Path(place), where) if place.endswith(".py") else _module(place, where)
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value)]
        raise RecipeError(where, f"{place} has no function {name!r}{suggestion(name, known)}")
    if inspect.iscoroutinefunction(function):
        raise RecipeError(where, "an async function was found, expected a plain one")
    return function  # type: ignore[no-any-return]


def _module(name: str, where: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise RecipeError(where, f"cannot import {name!r}: {error}") from error
        raise _not_executed(error, where) from error
    except ToolkitError:
        raise
    except (Exception, SystemExit) as error:
        raise _not_executed(error, where) from error


def _module_from_file(path: Path, where: str) -> Any:
    if not path.is_file():
        raise RecipeError(
            where, f"no file {path}", remedy="paths of user rewards are relative to the current folder"
        )
    spec = importlib.util.spec_from_file_location(f"user_reward_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RecipeError(where, f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look a class's module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        if isinstance(error, ToolkitError):
            raise
        raise _not_executed(error, where) from error
    return module


def _not_executed(error: BaseException, where: str) -> ToolkitError:
    """What to raise where a file or module of the user's ended in ``error`` while it was executed."""
    if isinstance(error, SyntaxError) and error.filename is not None and Path(error.filename).is_file():
        return RecipeError(where, f"{_shown_place(error.filename, error.lineno)}: {_said(error)}")
    ours = (__file__, importlib.__file__)
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    files = [file for file in files if file not in ours and not file.startswith("<frozen importlib")]
    # The first frame that is not of the import machinery is the user's file, or a module above it in its package.
    place = _innermost(error, files[0]) if files else None
    said = f"{place}: {_said(error)}" if place else _said(error)
    if isinstance(error, ModuleNotFoundError):
        return EnvironmentLacking(
            f"{where}: {said}",
            remedy=f"install what brings {error.name!r}; a module of your own is found in the current folder "
            "and on PYTHONPATH",
        )
    return RecipeError(where, f"cannot be executed: {said}")


class UserReward:
    """A user's function as a reward. An exception inside it ends the run: it is a bug, not a failed score.

    Raises:
        RecipeError: an option has the name of an argument that every function gets.
    """

    scale = "as the user's function returns it"
    may_be_constant = False

    def __init__(self, function: UserFunction, *, name: str, options: dict[str, Any] | None = None) -> None:
        self.name, self.function, self.options = name, function, dict(options or {})
        taken = [option for option in self.options if option in TAKEN_ARGUMENTS]
        if taken:
            raise RecipeError(f"reward term {name!r}", f"options: {', '.join(taken)} is passed already")
        self.background = bool(getattr(function, "background", False))

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Scores ``(B,)``; None of the function becomes not applicable, NaN stays a failure.

        Raises:
            RunFailed: the function raised, lacks arguments, or returned something else than a number or None for each
                completion. Its own ``ToolkitError`` and memory that ran out are raised as they are.
        """
        arguments = {
            "prompts": [list(row.prompt) for row in batch.rows],
            "completions": [[{"role": "assistant", "content": text}] for text in batch.completions],
            "completion_ids": [list(ids) for ids in batch.token_ids] or [[] for _ in batch.rows],
            **columns_of(batch.rows),
            **self.options,
        }
        try:
            values = self.function(**arguments)
        except ToolkitError:
            raise
        except (Exception, SystemExit) as error:
            if ran_out_of_memory(error):  # the run says what holds how much
                raise
            raise self._failed(error, arguments) from error
        numbers = self._numbers(values, len(batch))
        applicable = np.asarray([value is not None for value in numbers], dtype=bool)
        scores = np.asarray([math.nan if value is None else value for value in numbers], dtype=np.float64)
        return RewardOutput(scores, applicable=applicable)

    def _failed(self, error: BaseException, arguments: Mapping[str, object]) -> RunFailed:
        """The function's exception as a message: where in the user's file, and what the function was given."""
        code = _code_of(self.function)
        place = None if code is None else _innermost(error, code.co_filename)
        said = _said(error)
        if place is None and isinstance(error, TypeError) and not _takes(self.function, arguments):
            said = f"{error}; expected the signature {_SIGNATURE}"
        return RunFailed(
            f"reward term {self.name!r}{self._place(place)}: {said}",
            remedy=f"correct the function; passed were {', '.join(arguments)}; --debug shows the whole stack",
        )

    def _numbers(self, values: object, count: int) -> list[float | None]:
        """What the function returned as ``count`` numbers or Nones."""
        try:
            size = len(values)  # type: ignore[arg-type]
        except TypeError:  # tensors and arrays of no dimension have a length that raises
            size = None
        unordered = isinstance(values, str | bytes | Mapping | Set)
        if size is None or unordered or not isinstance(values, Iterable):
            raise self._unexpected(f"returned {_shown(values)}", count)
        if size != count:
            raise self._unexpected(f"returned {size} scores for {count} completions", count)
        numbers: list[float | None] = []
        for index, value in enumerate(values):
            try:
                if isinstance(value, str | bytes):
                    raise TypeError("text is not read as a number")
                numbers.append(None if value is None else float(value))
            except (TypeError, ValueError, OverflowError, RuntimeError) as error:
                raise self._unexpected(
                    f"returned {_shown(value)} as the score of completion {index}", count
                ) from error
        return numbers

    def _unexpected(self, found: str, count: int) -> RunFailed:
        return RunFailed(
            f"reward term {self.name!r}{self._place()}: {found}",
            remedy=f"return a list, array or tensor of {count} numbers or None, one for each completion",
        )

    def _place(self, place: str | None = None) -> str:
        """`` (file:line)`` of ``place``, otherwise of the function's beginning, where it is known."""
        code = _code_of(self.function)
        if place is None and code is not None:
            place = _shown_place(code.co_filename, code.co_firstlineno)
        return f" ({place})" if place is not None else ""


def _code_of(function: UserFunction) -> CodeType | None:
    """The code of a function, of what decorators wrapped, or of an object's ``__call__``."""
    inner: Any = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    code = getattr(inner, "__code__", None) or getattr(type(inner).__call__, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _takes(function: UserFunction, arguments: Mapping[str, object]) -> bool:
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError:
        return False
    except ValueError:  # a builtin that does not tell its signature
        pass
    return True


def _innermost(error: BaseException, filename: str) -> str | None:
    """``file:line`` of the innermost frame of ``filename`` that ``error`` went through."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == filename]
    return _shown_place(filename, lines[-1]) if lines else None


def _shown_place(filename: str, line: int | None) -> str:
    path, here = Path(filename), Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return f"{shown}:{line}" if line is not None else str(shown)


def _said(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _shown(value: object) -> str:
    """A value in short, with its type where the value does not tell."""
    text = " ".join(reprlib.repr(value).split())
    return text if value is None else f"{text} ({type(value).__name__})"
