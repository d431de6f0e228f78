"""Checkpoints of the RL loop: all that a resumed run needs to equal the uninterrupted one to the last bit.

``checkpoint-<step>/``: the policy's adapter and the processor at its root (plain peft loads them),
``value/`` (the critic's adapter, if it has one), ``ref/`` (a refreshed reference), ``value_head.safetensors``
(if there is a critic), ``optimizer.pt``, ``rng.pt``, ``rl_state.json``, and ``unfinished.pt`` where a signal broke an
iteration off between two minibatches. Under DeepSpeed ``deepspeed/`` takes the place of ``optimizer.pt``. ``final/``
holds policy and processor alone.
"""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from toolkit.errors import CheckpointError, RunFailed
from toolkit.models.loading import LoadedVlm
from toolkit.models.roles import POLICY, REFERENCE, VALUE, role_parameters, roles_of
from toolkit.rl.engine import Engine
from toolkit.runs.atomic import atomic_directory
from toolkit.runs.metrics import json_safe
from toolkit.runs.model_card import write_model_card
from toolkit.runs.state import random_state, restore_random_state

__all__ = ["STATE_FILE", "load_checkpoint", "save_checkpoint", "save_policy"]

STATE_FILE = "rl_state.json"
_HEAD, _OPTIMIZER, _RNG, _DEEPSPEED = "value_head.safetensors", "optimizer.pt", "rng.pt", "deepspeed"
_ADAPTER, _UNFINISHED = "adapter_model.safetensors", "unfinished.pt"


def save_policy(
    folder: Path, vlm: LoadedVlm, engine: Engine, *, notes: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Write the policy's adapter, the processor and a model card to ``folder``, atomically; no pickle among the files.

    ``notes`` are JSON files to lie beside them, contents by file name.

    Raises:
        RunFailed: weights are not finite, or a file could not be written.
    """
    _refuse_broken(folder, vlm, engine)
    with _told(folder), _shared_directory(folder, engine) as staging, engine.gathered():
        if engine.is_main:
            _write_adapters(staging, vlm, [POLICY])
            write_model_card(staging, folder.parent)
            for name, values in (notes or {}).items():
                (staging / name).write_text(json.dumps(json_safe(values), indent=2), encoding="utf-8")
    engine.accelerator.wait_for_everyone()


def save_checkpoint(
    folder: Path,
    vlm: LoadedVlm,
    engine: Engine,
    state: Mapping[str, Any],
    *,
    reference: bool = False,
    unfinished: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint to ``folder``, atomically; ``state`` must be JSON (floats keep all their digits).

    ``reference`` also writes the reference, which a run that refreshes it cannot take from its starting policy.
    ``unfinished`` is this process's part of an iteration that was broken off, tensors and plain values.

    Raises:
        RunFailed: weights are not finite, or a file could not be written (disk full, quota). Nothing is left of it,
            and earlier checkpoints are as they were.
    """
    _refuse_broken(folder, vlm, engine)
    kept = (POLICY, VALUE, REFERENCE) if reference else (POLICY, VALUE)
    generators = gather_object([random_state()])
    parts = gather_object([unfinished]) if unfinished is not None else None
    with _told(folder), _shared_directory(folder, engine) as staging:
        with engine.gathered():
            if engine.is_main:
                _write_adapters(staging, vlm, [name for name in kept if name in roles_of(vlm.model)])
                if engine.module.value_head is not None:
                    head = engine.module.value_head.state_dict()
                    save_file({key: value.detach().cpu() for key, value in head.items()}, staging / _HEAD)
        if engine.deepspeed:
            engine.prepared.save_checkpoint(str(staging), tag=_DEEPSPEED, exclude_frozen_parameters=True)
        elif engine.is_main:
            torch.save(engine.optimizer.state_dict(), staging / _OPTIMIZER)
        if engine.is_main:
            torch.save(generators, staging / _RNG)
            if parts is not None:
                torch.save(parts, staging / _UNFINISHED)
            text = json.dumps({**state, "processes": engine.world}, indent=2, allow_nan=False)
            (staging / STATE_FILE).write_text(text, encoding="utf-8")
    engine.accelerator.wait_for_everyone()


def load_checkpoint(folder: Path, vlm: LoadedVlm, engine: Engine) -> dict[str, Any]:
    """Put a checkpoint's weights, optimizer and random states back; returns the ``state`` that was saved.

    Where an iteration was broken off, this process's part of it is in there as ``unfinished``.

    Raises:
        CheckpointError: files are missing, belong to other parameters, or to another number of processes.
    """
    try:
        state: dict[str, Any] = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        if state["processes"] != engine.world:
            raise CheckpointError(
                f"{folder} was written by {state['processes']} processes, this run has {engine.world}",
                remedy="resume with the same number of processes",
            )
        if engine.deepspeed:
            engine.prepared.load_checkpoint(str(folder), tag=_DEEPSPEED, load_module_strict=False)
        else:
            _load_adapter(folder, vlm, POLICY)
            if VALUE in roles_of(vlm.model):
                _load_adapter(folder / VALUE, vlm, VALUE)
            if engine.module.value_head is not None:
                engine.module.value_head.load_state_dict(load_file(folder / _HEAD))
            engine.optimizer.load_state_dict(torch.load(folder / _OPTIMIZER, weights_only=True))
        if (folder / REFERENCE).is_dir():
            _load_adapter(folder / REFERENCE, vlm, REFERENCE)
        restore_random_state(torch.load(folder / _RNG, weights_only=True)[engine.rank])
        if (folder / _UNFINISHED).is_file():
            state["unfinished"] = torch.load(folder / _UNFINISHED, weights_only=True)[engine.rank]
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{folder} cannot be resumed from: {error}",
            remedy=f"remove {folder} and resume from an earlier one",
        ) from error
    return state


def _load_adapter(folder: Path, vlm: LoadedVlm, name: str) -> None:
    saved = load_file(folder / _ADAPTER)
    parameters = dict(role_parameters(vlm.model, name))
    if saved.keys() != parameters.keys():
        raise CheckpointError(f"{folder}: the adapter {name!r} is one for other layers than this model's")
    with torch.no_grad():
        for key, value in saved.items():
            parameters[key].copy_(value)


def _refuse_broken(folder: Path, vlm: LoadedVlm, engine: Engine) -> None:
    """The policy's weights are finite; all processes find the same."""
    with engine.gathered():
        finite = all(bool(torch.isfinite(value).all()) for _, value in role_parameters(vlm.model, POLICY))
    if not finite:
        raise RunFailed(
            f"the policy's weights are infinite or NaN: {folder.name} is not written, what was saved before is sound",
            remedy="go on from the last checkpoint or best/ with a lower optimizer.learning_rate",
        )


def _write_adapters(folder: Path, vlm: LoadedVlm, names: list[str]) -> None:
    """The policy at the root of ``folder``, other roles in folders of their names, and the processor."""
    vlm.model.save_pretrained(folder, selected_adapters=names, save_embedding_layers=False)
    vlm.processor.save_pretrained(folder)


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Failed writes as a message; safetensors and torch.save report a full disk in errors of their own."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunFailed(
            f"{folder} could not be written: {error}",
            remedy="free some space; --resume goes on from the last checkpoint",
        ) from error


@contextlib.contextmanager
def _shared_directory(path: Path, engine: Engine) -> Iterator[Path]:
    """``atomic_directory`` of the main process, to be written into by all of them."""
    if engine.world == 1:
        with atomic_directory(path) as staging:
            yield staging
        return
    with atomic_directory(path) if engine.is_main else contextlib.nullcontext() as own:
        shared: list[Any] = [str(own)]
        broadcast_object_list(shared)
        yield Path(shared[0])
        engine.accelerator.wait_for_everyone()
