"""Reading and writing trained parameters, also where DeepSpeed ZeRO-3 has split them over the processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import Trainer

__all__ = ["load_trained_tensors", "trained_tensors"]


def trained_tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Copies on the CPU of all parameters that train, by their names in the unwrapped model.

    Every process must call it; under ZeRO-3 only the trained parameters are gathered, never the frozen base.
    """
    trained = _trained(trainer)
    with _whole(trainer, list(trained.values())):
        return {name: parameter.detach().cpu().clone().contiguous() for name, parameter in trained.items()}


def load_trained_tensors(trainer: Trainer, tensors: Mapping[str, Tensor]) -> None:
    """Put ``tensors`` into the parameters of these names; every process must call it.

    Raises:
        KeyError: a parameter that trains is not among ``tensors``.
    """
    trained = _trained(trainer)
    with _whole(trainer, list(trained.values()), changed=True), torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[name].to(parameter.device, parameter.dtype))


def _trained(trainer: Trainer) -> dict[str, nn.Parameter]:
    model = trainer.accelerator.unwrap_model(trainer.model)
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@contextmanager
def _whole(trainer: Trainer, parameters: list[nn.Parameter], *, changed: bool = False) -> Iterator[None]:
    """Inside the block the parameters are whole; with ``changed`` the first process's values are kept."""
    plugin = trainer.accelerator.state.deepspeed_plugin if trainer.is_deepspeed_enabled else None
    if plugin is None or plugin.zero_stage != 3:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0 if changed else None):
        yield
