"""Resume state: random generators and plain values, in a file that unpickles nothing but tensors and containers."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import CheckpointError

__all__ = ["load_state", "random_state", "restore_random_state", "save_state"]


def random_state() -> dict[str, Any]:
    """State of the generators of Python, numpy, torch and every CUDA device, made of tensors and plain values."""
    import numpy as np
    import torch

    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": {"version": version, "words": list(words), "gauss": gauss},
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put the generators back to what ``random_state`` returned.

    The states of CUDA devices are restored where the machine has as many devices as when they were taken.
    """
    import numpy as np
    import torch

    python, numbers = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"]), python["gauss"]))
    keys = numbers["keys"].numpy().astype(np.uint32)
    np.random.set_state((numbers["name"], keys, numbers["position"], numbers["has_gauss"], numbers["cached"]))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(list(state["cuda"]))


def save_state(path: str | Path, **parts: Any) -> None:
    """Write ``parts`` and the generators' states to ``path``.

    Args:
        path: the file, normally inside a folder from ``toolkit.runs.atomic.atomic_directory``.
        **parts: tensors, optimizer state dicts, numbers, text, lists and dicts of these.

    Raises:
        TypeError: a part holds an object that only unpickling could restore.
    """
    import torch

    for name, part in parts.items():
        _refuse_objects(part, name)
    with Path(path).open("wb") as file:
        torch.save({**parts, "random": random_state()}, file)
        file.flush()
        os.fsync(file.fileno())


def load_state(path: str | Path, *, restore_random: bool = True) -> dict[str, Any]:
    """The parts that ``save_state`` wrote, tensors on the CPU; the generators are put back unless told otherwise.

    Raises:
        CheckpointError: the file is missing, damaged, or holds objects.
    """
    import pickle

    import torch

    try:
        parts: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        random_part = parts.pop("random")
    except FileNotFoundError:
        raise CheckpointError(f"{path}: the checkpoint has no resume state") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: cannot be read as resume state ({reason})") from error
    if restore_random:
        restore_random_state(random_part)
    return parts


def _refuse_objects(value: Any, where: str) -> None:
    import torch

    if value is None or isinstance(value, bool | int | float | str | torch.Tensor | torch.Size | torch.dtype):
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_objects(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_objects(item, f"{where}.{index}")
    else:
        raise TypeError(
            f"{where} is a {type(value).__name__}; resume state holds tensors and plain values only"
        )
