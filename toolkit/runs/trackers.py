"""Experiment trackers behind one small interface; each is imported when a recipe names it."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from toolkit.errors import EnvironmentLacking
from toolkit.runs.processes import is_main_process
from toolkit.runs.sample_table import SampleTable

__all__ = ["Tracker", "Trackers", "open_trackers", "require_trackers"]

_log = logging.getLogger("vlm_rlhf.runs")

_MODULES = {"tensorboard": "torch.utils.tensorboard", "trackio": "trackio", "wandb": "wandb"}


class Tracker(Protocol):
    """Where scalar metrics and samples of a run go besides ``metrics.jsonl`` and ``samples/``."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the values of one step."""

    def log_samples(self, step: int, table: SampleTable) -> None:
        """Send a table of samples with their pictures."""

    def close(self) -> None:
        """Flush and end."""


class Trackers:
    """Several trackers as one; a context manager that closes them. Only finite numbers are passed on."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)

    def log(self, step: int, /, **values: Any) -> None:
        """Send the scalar values of one step to every tracker."""
        scalars = {
            name: float(value)
            for name, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        }
        for tracker in self._trackers:
            tracker.log(step, scalars)

    def log_samples(self, step: int, table: SampleTable) -> None:
        """Send a table of samples to every tracker; one that cannot take it gets a warning in the log, no table."""
        for tracker in self._trackers:
            try:
                tracker.log_samples(step, table)
            except Exception as error:  # noqa: BLE001 - a view of the run is no reason to end it
                name = type(tracker).__name__.strip("_").lower()
                _log.warning("%s got no samples: %s: %s", name, type(error).__name__, error)

    def close(self) -> None:
        """End every tracker."""
        for tracker in self._trackers:
            tracker.close()

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_trackers(names: Sequence[str], folder: Path, *, config: Mapping[str, Any] | None = None) -> Trackers:
    """The trackers of ``run.report_to``.

    Args:
        names: any of ``tensorboard``, ``wandb``, ``trackio``.
        folder: the run directory; its name is the run's name. TensorBoard and W&B write below it, trackio to its own
            folder (``TRACKIO_DIR``), where its dashboard looks.
        config: the recipe as plain values, shown beside the run.

    Returns:
        trackers that write on the main process and do nothing on others.

    Raises:
        EnvironmentLacking: a tracker is not installed, or W&B is told to be online and refuses.
    """
    modules = {name: _load(name) for name in names}
    if not is_main_process():
        return Trackers([])
    openers: dict[str, type[_Tensorboard] | type[_Wandb] | type[_Trackio]] = {
        "tensorboard": _Tensorboard,
        "wandb": _Wandb,
        "trackio": _Trackio,
    }
    return Trackers([openers[name](module, folder, dict(config or {})) for name, module in modules.items()])


def require_trackers(names: Sequence[str]) -> None:
    """Look whether the trackers are installed, without importing them: before a model loads, not after.

    Raises:
        EnvironmentLacking: one is not.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise _not_installed(name, f"No module named {name!r}")


def _load(name: str) -> Any:
    try:
        return importlib.import_module(_MODULES[name])
    except ImportError as error:
        raise _not_installed(name, str(error)) from error


def _not_installed(name: str, reason: str) -> EnvironmentLacking:
    remedy = "pip install 'vlm-rlhf[tracking]'"
    return EnvironmentLacking(f"run.report_to: {name} is not installed ({reason})", remedy=remedy)


class _Tensorboard:
    def __init__(self, module: Any, folder: Path, config: dict[str, Any]) -> None:
        self._writer = module.SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("recipe", "\n".join(f"    {key}: {value}" for key, value in config.items()))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def log_samples(self, step: int, table: SampleTable) -> None:
        self._writer.add_text("samples", table.markdown(), step)
        canvas = table.canvas()
        if canvas is not None:
            self._writer.add_images("samples", canvas, step, dataformats="NHWC")

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, module: Any, folder: Path, config: dict[str, Any]) -> None:
        self._module = module
        try:
            self._run = module.init(project="vlm-rlhf", name=folder.name, dir=str(folder), config=config)
        except module.Error as error:
            raise EnvironmentLacking(
                f"run.report_to: wandb did not start: {error}",
                remedy="WANDB_MODE=offline keeps the run on disk (the default here); 'wandb sync' sends it later",
            ) from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def log_samples(self, step: int, table: SampleTable) -> None:
        columns, rows = table.with_pictures(self._module.Image)
        self._run.log({"samples": self._module.Table(columns=columns, data=rows)}, step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    def __init__(self, module: Any, folder: Path, config: dict[str, Any]) -> None:
        self._module = module
        module.init(project="vlm-rlhf", name=folder.name, config=config)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._module.log(dict(values), step=step)

    def log_samples(self, step: int, table: SampleTable) -> None:
        columns, rows = table.with_pictures(self._module.Image)
        self._module.log({"samples": self._module.Table(columns=columns, data=rows)}, step=step)

    def close(self) -> None:
        self._module.finish()
