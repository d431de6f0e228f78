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

import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import RecipeError
from toolkit.rewards.base import RewardBatch, RewardOutput, columns_of

__all__ = ["UserReward", "load_function"]

UserFunction = Callable[..., Sequence[float | None]]


def load_function(location: str) -> UserFunction:
    """The function at ``module:function`` or ``file.py:function``.

    Raises:
        RecipeError: no such file, module or function, or it is not callable.
    """
    place, _, name = location.rpartition(":")
    where = f"reward term {location!r}"
    if not place or not name.isidentifier():
        raise RecipeError(where, "expected 'package.module:function' or 'path/to/file.py:function'")
    module = _module_from_file(Path(place), where) if place.endswith(".py") else _module(place, where)
    function = getattr(module, name, None)
    if not callable(function):
        raise RecipeError(where, f"{place} has no function {name!r}")
    if inspect.iscoroutinefunction(function):
        raise RecipeError(where, "an async function was found, expected a plain one")
    return function  # type: ignore[no-any-return]


def _module(name: str, where: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RecipeError(where, f"cannot import {name!r}: {error}") from error


def _module_from_file(path: Path, where: str) -> Any:
    if not path.is_file():
        raise RecipeError(
            where, f"no file {path}", remedy="paths of user rewards are relative to the current folder"
        )
    spec = importlib.util.spec_from_file_location(f"user_reward_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RecipeError(where, f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class UserReward:
    """A user's function as a reward. An exception inside it ends the run: it is a bug, not a failed score."""

    scale = "as the user's function returns it"
    may_be_constant = False

    def __init__(self, function: UserFunction, *, name: str, options: dict[str, Any] | None = None) -> None:
        self.name, self.function, self.options = name, function, dict(options or {})
        self.background = bool(getattr(function, "background", False))

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Scores ``(B,)``; None of the function becomes not applicable, NaN stays a failure."""
        values = self.function(
            prompts=[list(row.prompt) for row in batch.rows],
            completions=[[{"role": "assistant", "content": text}] for text in batch.completions],
            completion_ids=[list(ids) for ids in batch.token_ids] or [[] for _ in batch.rows],
            **{**columns_of(batch.rows), **self.options},
        )
        if len(values) != len(batch):
            raise RecipeError(
                f"reward term {self.name!r}", f"returned {len(values)} scores for {len(batch)} completions"
            )
        applicable = np.asarray([value is not None for value in values], dtype=bool)
        scores = np.asarray(
            [math.nan if value is None else float(value) for value in values], dtype=np.float64
        )
        return RewardOutput(scores, applicable=applicable)
