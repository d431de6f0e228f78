"""What ``model.id`` points to: a model directory, an adapter directory with its base, or a hub id."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import CheckpointError

__all__ = ["ModelSource", "find_source"]

_ADAPTER_FILE = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_MODEL_FILE = "config.json"


@dataclass(frozen=True)
class ModelSource:
    """Where the weights come from.

    Attributes:
        base: model directory or hub id of the base.
        revision: revision of the base on the hub.
        adapter: adapter directory, or None.
        adapter_config: contents of the adapter's ``adapter_config.json``.
    """

    base: str
    revision: str | None = None
    adapter: Path | None = None
    adapter_config: dict[str, Any] | None = None

    @property
    def local(self) -> bool:
        """The base is a directory on this machine."""
        return Path(self.base).is_dir()

    @property
    def processor(self) -> str:
        """Where the processor is: the adapter's directory when it has one, otherwise the base."""
        if self.adapter is not None and (self.adapter / "processor_config.json").is_file():
            return str(self.adapter)
        return self.base


def find_source(model_id: str, revision: str | None = None) -> ModelSource:
    """Tell model directory, adapter directory and hub id apart.

    Raises:
        CheckpointError: a directory that holds neither, a path that does not exist, or an adapter whose base
            is gone.
    """
    path = Path(model_id).expanduser()
    if path.is_dir():
        return _from_directory(path, revision)
    if path.exists():
        raise CheckpointError(
            f"model.id: {model_id} is a file", remedy="give the directory that holds the model"
        )
    if _looks_like_path(model_id):
        raise CheckpointError(
            f"model.id: there is no directory {model_id} (looked in {Path.cwd()})",
            remedy="run the stage that writes it first, or correct the path",
        )
    return ModelSource(model_id, revision)


def _from_directory(path: Path, revision: str | None) -> ModelSource:
    if (path / _ADAPTER_FILE).is_file():
        return _from_adapter(path, revision)
    if (path / _MODEL_FILE).is_file():
        return ModelSource(str(path.resolve()))  # adapters record it, and are read from other directories
    inside = sorted(p.parent.name for name in (_ADAPTER_FILE, _MODEL_FILE) for p in path.glob(f"*/{name}"))
    hint = (
        f"did you mean {path / inside[-1]}?" if inside else "give the directory that a stage wrote as final/"
    )
    raise CheckpointError(
        f"model.id: {path} is no checkpoint: it has neither {_MODEL_FILE} nor {_ADAPTER_FILE}", remedy=hint
    )


def _from_adapter(path: Path, revision: str | None) -> ModelSource:
    try:
        config = json.loads((path / _ADAPTER_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{path / _ADAPTER_FILE} is not JSON: {error}",
            remedy="restore the file, or train the adapter again",
        ) from error
    if not (path / _ADAPTER_WEIGHTS).is_file():
        raise CheckpointError(
            f"the adapter {path} has no {_ADAPTER_WEIGHTS}",
            remedy="adapters are read from safetensors only; save it again with a current peft",
        )
    base = config.get("base_model_name_or_path")
    if not base:
        raise CheckpointError(
            f"{path / _ADAPTER_FILE} names no base_model_name_or_path", remedy="add the base model's id to it"
        )
    candidates = [Path(base).expanduser(), path / base]
    found = next((c for c in candidates if (c / _MODEL_FILE).is_file()), None)
    if found is None and (_looks_like_path(base) or any(c.exists() for c in candidates)):
        raise CheckpointError(
            f"the adapter {path} belongs to the base model {base}, which is not there",
            remedy=f"restore it, or correct base_model_name_or_path in {path / _ADAPTER_FILE}",
        )
    return ModelSource(
        str(found.resolve()) if found else base, revision or config.get("revision"), path, config
    )


def _looks_like_path(text: str) -> bool:
    """A hub id is ``name`` or ``owner/name``; anything else is meant as a path."""
    return text.startswith((".", "/", "~")) or text.count("/") > 1 or text.endswith("/") or "\\" in text
