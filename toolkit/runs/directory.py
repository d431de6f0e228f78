"""The directory of a run: what it holds, who may write to it, when it may be continued.

``<output_dir>/{recipe.resolved.yaml, environment.json, metrics.jsonl, checkpoint-<step>/, final/, samples/,
report.html, finished.json}``. The next stage reads ``final/``; its ``README.md`` is the model card.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.config.document import Tree, parse_text, walk
from toolkit.config.loading import resolved_yaml, with_defaults
from toolkit.config.schema import Recipe
from toolkit.errors import CheckpointError
from toolkit.runs.atomic import atomic_write_text, remove_leftovers
from toolkit.runs.checkpoints import latest_checkpoint, prune
from toolkit.runs.environment import describe_environment
from toolkit.runs.lock import DirectoryLock
from toolkit.runs.metrics import MetricsLog, json_safe
from toolkit.runs.processes import is_main_process
from toolkit.runs.signals import StopSignals

__all__ = ["RunDirectory"]

_log = logging.getLogger("vlm_rlhf.runs")
_BOOKKEEPING = ("recipe.resolved.yaml", "environment.json", ".lock")
# Where things are and how long to wait for them: a run goes on from another place.
_PLACES = frozenset(
    {
        "run.output_dir",
        *(f"rollout.vllm.{key}" for key in ("url", "served_model", "adapter_folder", "max_requests")),
        *(f"rollout.vllm.{key}" for key in ("timeout_seconds", "retry_seconds")),
    }
)
# What watches a run and writes about it, and what no weight depends on.
_WATCHING = ("guards", "run.report_to", "run.log_every_steps", "run.save_every_steps", "run.save_total_limit")


class RunDirectory:
    """Paths of a run and the writing of everything but its results.

    Creating the object touches nothing; ``prepare`` does. Only the main process writes.

    Attributes:
        path: the directory.
        metrics: the log ``metrics.jsonl``.
        recipe_path: the recipe's file, once ``prepare`` was told it.
        stop: flag of SIGINT, SIGTERM and SIGUSR1, to be asked at the end of every step.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.path = Path(output_dir)
        self.recipe_path: Path | None = None
        self.metrics = MetricsLog(self.path / "metrics.jsonl", enabled=is_main_process())
        self.stop = StopSignals()
        self._lock = DirectoryLock(self.path / ".lock")
        self._made: list[Path] = []

    @property
    def final(self) -> Path:
        """Where the trained model goes, and where the next stage finds it."""
        return self.path / "final"

    @property
    def samples(self) -> Path:
        """Tables of samples with their images."""
        return self.path / "samples"

    @property
    def recipe_file(self) -> Path:
        """The recipe with all its defaults, as it was run."""
        return self.path / "recipe.resolved.yaml"

    @property
    def environment_file(self) -> Path:
        """Versions, commit, command line, seeds, and digests of every input."""
        return self.path / "environment.json"

    def checkpoint_path(self, step: int) -> Path:
        """``checkpoint-<step>``; write it with ``toolkit.runs.atomic.atomic_directory``."""
        return self.path / f"checkpoint-{step}"

    def latest_checkpoint(self, *, required: Sequence[str] = ()) -> Path | None:
        """The complete checkpoint with the highest step, or ``None``."""
        return latest_checkpoint(self.path, required=required)

    def prune_checkpoints(self, save_total_limit: int, *, keep: Path | None = None) -> list[Path]:
        """Delete the oldest checkpoints beyond the limit, never ``keep`` or the latest."""
        return prune(self.path, save_total_limit, keep=keep) if is_main_process() else []

    def prepare(self, recipe: Recipe, *, resume: bool = False, recipe_path: Path | None = None) -> None:
        """Create or reopen the directory for ``recipe``.

        Writes ``recipe.resolved.yaml`` and ``environment.json``, takes the directory's lock and clears what a
        killed process left half-written.

        Raises:
            CheckpointError: the directory holds results and ``resume`` is false, it holds something that is no
                run, another process writes to it, or ``resume`` is true and the recipe differs from the one that
                began the run (every changed key is named).
        """
        if not is_main_process():
            return
        self.check(recipe, resume=resume)
        self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        self.check(recipe, resume=resume)  # again: another process may have written while this one waited
        remove_leftovers(self.path)
        before = self._environment() if self.has_results() else {}
        for key, line in self._differences(recipe) if before else ():
            if key not in _PLACES:
                _log.info("goes on with another setting: %s", line)
        atomic_write_text(self.recipe_file, resolved_yaml(recipe))
        self._write_environment(_joined(before, describe_environment(recipe, recipe_path)))

    def check(self, recipe: Recipe, *, resume: bool = False) -> None:
        """Whether ``prepare`` would accept the directory; writes nothing. Raises as ``prepare`` does."""
        if self.path.exists() and not self.path.is_dir():
            raise CheckpointError(
                f"{self.path} is a file, expected a run directory", remedy="choose another run.output_dir"
            )
        if not self.has_results():
            return
        if not self.recipe_file.is_file():
            raise CheckpointError(
                f"{self.path} is not empty and holds no run (recipe.resolved.yaml is missing)",
                remedy="choose another run.output_dir",
            )
        changed = self.changed_keys(recipe)
        if not resume:
            whose = "another recipe" if changed else "the same recipe"
            remedy = f"choose another run.output_dir, or remove {self.path}"
            remedy = remedy if changed else f"continue it with --resume, {remedy}"
            raise CheckpointError(f"{self.path} already holds a run of {whose}", remedy=remedy)
        if changed:
            listed = "\n".join(f"  {line}" for line in changed)
            raise CheckpointError(
                f"{self.path} cannot be resumed: the recipe changed since the run began\n{listed}",
                remedy="undo the changes, or start a new run in another run.output_dir",
            )

    def record(self, **values: Any) -> None:
        """Add facts to ``environment.json`` (resolved base revision, weight hash, reward statistics …)."""
        if is_main_process():
            self._write_environment(self._environment() | json_safe(values))

    def mark_finished(self, **values: Any) -> None:
        """Write ``finished.json`` with ``values`` (``seconds=…``): a pipeline skips this stage from now on."""
        if is_main_process():
            text = json.dumps(json_safe(values), indent=2, ensure_ascii=False)
            atomic_write_text(self.path / "finished.json", text + "\n")

    def is_finished(self) -> bool:
        """Whether the run ended by itself."""
        return (self.path / "finished.json").is_file()

    def has_results(self) -> bool:
        """Whether there is anything but the bookkeeping that ``prepare`` wrote."""
        return self.path.is_dir() and any(
            entry.name not in _BOOKKEEPING and not entry.name.startswith(".") for entry in self.path.iterdir()
        )

    def release(self) -> None:
        """Give the lock back; a directory without results is removed, so that a failed start leaves nothing."""
        if not self._lock.held:
            return  # never prepared, or another process's directory
        if not self.has_results():
            shutil.rmtree(self.path, ignore_errors=True)
            for folder in self._made[1:]:
                with contextlib.suppress(OSError):  # something else was put there meanwhile
                    folder.rmdir()
        self._lock.release()

    def changed_keys(self, recipe: Recipe) -> list[str]:
        """Differences between the recipe that began this run and ``recipe``, as ``key: was → is``.

        ``run.output_dir`` does not count, nor where a sampling server is: directories and servers may have been moved;
        nor do guard rails, trackers, and how often is logged and saved. A key that is younger than the run had its
        default.
        """
        return [line for key, line in self._differences(recipe) if not _may_change(key)]

    def _differences(self, recipe: Recipe) -> list[tuple[str, str]]:
        before = _leaves(with_defaults(self.recipe_file.read_text(encoding="utf-8")), self.recipe_file)
        now = _leaves(resolved_yaml(recipe), self.recipe_file)
        return [
            (key, f"{key}: was {before.get(key, 'absent')}, is {now.get(key, 'absent')}")
            for key in dict.fromkeys([*before, *now])
            if before.get(key) != now.get(key)
        ]

    def _environment(self) -> dict[str, Any]:
        if not self.environment_file.is_file():
            return {}
        return dict(json.loads(self.environment_file.read_text(encoding="utf-8")))

    def _write_environment(self, values: dict[str, Any]) -> None:
        text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
        atomic_write_text(self.environment_file, text + "\n")


def _joined(first: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The environment of the start, with a line for every time the run was resumed."""
    if not first:
        return now
    was, inputs = first.get("inputs", {}), now["inputs"]
    same = [digest for digest in was.values() if digest in inputs.values()]
    for name in sorted(set(was) | set(inputs)):
        before, after = was.get(name), inputs.get(name)
        # The same contents may have another name: a run was moved, or is resumed from another directory.
        renamed = None in (before, after) and (before or after) in same
        if before != after and not renamed:
            _log.warning("%s changed since the run began: it will not equal an uninterrupted one", name)
    again = {key: now[key] for key in ("started", "command", "versions", "git", "processes")}
    return first | {"resumed": [*first.get("resumed", []), again]}


def _leaves(text: str, path: Path) -> dict[str, str]:
    """Every value of a resolved recipe by dotted key, as text."""
    problems: list[str] = []
    tree = parse_text(text, str(path), problems)
    if problems or not isinstance(tree, Tree):
        raise CheckpointError(f"{path} cannot be read: {'; '.join(problems) or 'it is empty'}")
    return {key: str(leaf.value) for key, leaf in walk(tree)}


def _may_change(key: str) -> bool:
    watching = any(key == name or key.startswith(f"{name}.") for name in _WATCHING)
    return key in _PLACES or (watching and key != "guards.calibration_samples")
