"""Several adapters ("roles") on one base model: ``default`` (policy), ``ref``, ``value`` and ``reward``.

PEFT's ``set_adapter`` changes ``requires_grad``: switching to the reference and back unfreezes it and drops
the gradients of the others, without a word. Here a role is switched for the time of a ``with`` block and
nothing else changes. What trains is declared once, by ``set_trainable``.

The switch sets PEFT's private ``BaseTunerLayer._active_adapter``; ``tests/toolkit/models/test_roles.py``
holds the contract with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from toolkit.errors import RunFailed

__all__ = [
    "POLICY",
    "REFERENCE",
    "REWARD",
    "VALUE",
    "active_role",
    "add_role",
    "checkpoint_contexts",
    "copy_role",
    "role",
    "role_parameters",
    "roles_of",
    "set_trainable",
]

POLICY, REFERENCE, VALUE, REWARD = "default", "ref", "value", "reward"

_layers_of: WeakKeyDictionary[nn.Module, list[BaseTunerLayer]] = WeakKeyDictionary()


def _tuner_layers(model: PeftModel) -> list[BaseTunerLayer]:
    if model not in _layers_of:
        _layers_of[model] = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    return _layers_of[model]


def _require_peft(model: nn.Module) -> PeftModel:
    if not isinstance(model, PeftModel):
        raise RunFailed(
            f"roles need a model with adapters, found {type(model).__name__}",
            remedy="set model.lora, or give an adapter directory as model.id",
        )
    return model


def roles_of(model: nn.Module) -> list[str]:
    """Names of the model's roles in the order they were added; empty for a model without adapters."""
    return list(model.peft_config) if isinstance(model, PeftModel) else []


def active_role(model: nn.Module) -> str | None:
    """The role that forwards use now; None for the bare base.

    Raises:
        RunFailed: several adapters are active together, or layers disagree.
    """
    active = {tuple(layer.active_adapters) for layer in _tuner_layers(_require_peft(model))}
    if len(active) != 1 or len(names := next(iter(active))) > 1:
        raise RunFailed(f"the adapters' layers disagree about the active role: {sorted(active)}")
    return names[0] if names else None


@contextmanager
def role(model: nn.Module, name: str | None) -> Iterator[None]:
    """Forwards inside the block use role ``name``, or the bare base for None; nothing else changes.

    Blocks nest, and the role before is restored after an exception too.

    Raises:
        RunFailed: no such role.
    """
    layers = _tuner_layers(_require_peft(model))
    if name is not None and name not in roles_of(model):
        raise RunFailed(f"no role {name!r}; the model has {', '.join(roles_of(model))}")
    before = [layer._active_adapter for layer in layers]
    try:
        for layer in layers:
            layer._active_adapter = [] if name is None else [name]
        yield
    finally:
        for layer, previous in zip(layers, before, strict=True):
            layer._active_adapter = previous


def add_role(
    model: nn.Module, name: str, *, copy_from: str | None = None, config: LoraConfig | None = None
) -> None:
    """Add a frozen role; the active role and every other parameter's ``requires_grad`` stay as they are.

    Args:
        copy_from: role whose settings and weights are copied; without it the settings of the first role (or
            ``config``) and PEFT's initial weights, which change nothing (LoRA's B is zero).

    Raises:
        RunFailed: the role exists already, or ``copy_from`` does not.
    """
    peft_model = _require_peft(model)
    existing = roles_of(model)
    if name in existing or (copy_from is not None and copy_from not in existing):
        raise RunFailed(
            f"cannot add role {name!r} copied from {copy_from!r}: the model has {', '.join(existing)}"
        )
    trainable = {parameter for parameter in model.parameters() if parameter.requires_grad}
    before = active_role(model)
    peft_model.add_adapter(name, config or peft_model.peft_config[copy_from or existing[0]])
    _layers_of.pop(model, None)
    for layer in _tuner_layers(peft_model):
        layer._active_adapter = [] if before is None else [before]
    for parameter in model.parameters():
        parameter.requires_grad_(parameter in trainable)
    if copy_from is not None:
        copy_role(model, copy_from, name)


def copy_role(model: nn.Module, source: str, target: str) -> None:
    """Give ``target`` the weights that ``source`` has now; what trains stays as declared."""
    weights = dict(role_parameters(model, source))
    with torch.no_grad():
        for key, parameter in role_parameters(model, target):
            parameter.copy_(weights[key])


def role_parameters(model: nn.Module, name: str) -> list[tuple[str, nn.Parameter]]:
    """(name without the role, parameter) of one role's adapter; names and order equal for all roles."""
    marker = f".{name}."
    return [
        (key.replace(marker, ".", 1), parameter)
        for key, parameter in _require_peft(model).named_parameters()
        if marker in key and "lora_" in key
    ]


def set_trainable(model: nn.Module, roles: Collection[str]) -> None:
    """Declare what trains: the adapters of ``roles`` and nothing else of the model.

    Raises:
        RunFailed: a role that does not exist.
    """
    unknown = sorted(set(roles) - set(roles_of(model)))
    if unknown:
        raise RunFailed(f"no role {', '.join(unknown)}; the model has {', '.join(roles_of(model))}")
    model.requires_grad_(False)
    for name in roles:
        for _, parameter in role_parameters(model, name):
            parameter.requires_grad_(True)


def checkpoint_contexts(model: nn.Module) -> Any:
    """A ``context_fn`` for non-reentrant checkpointing: the recompute runs under its forward's role.

    Without it the recompute uses whichever role is active during backward, and the gradients of the other
    roles are wrong without any message.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), role(model, active_role(model))

    return contexts
