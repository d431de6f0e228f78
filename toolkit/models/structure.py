"""Where the parts of a vision-language model are: found by identity in the model, not by a table of names."""

from __future__ import annotations

import re

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from toolkit.errors import RecipeError, RunFailed

__all__ = [
    "inner_model",
    "language_linear_names",
    "language_model_name",
    "lora_target_pattern",
    "modules_beside_language_model",
    "output_head",
    "trunk",
]


def inner_model(model: nn.Module) -> PreTrainedModel:
    """transformers' model inside ``model``: unwraps PEFT, DDP and DeepSpeed engines."""
    while not isinstance(model, PreTrainedModel):
        if isinstance(model, PeftModel):
            model = model.get_base_model()
        elif isinstance(getattr(model, "module", None), nn.Module):
            model = model.module  # type: ignore[assignment]
        else:
            raise RunFailed(f"{type(model).__name__} holds no transformers model")
    return model


def trunk(model: nn.Module) -> nn.Module:
    """The model without its output head: a call gives ``last_hidden_state`` (B, L, hidden)."""
    inner = inner_model(model)
    return getattr(inner, inner.base_model_prefix)


def output_head(model: nn.Module) -> nn.Module:
    """The linear layer from hidden states to logits.

    Raises:
        RunFailed: the model has none.
    """
    head = inner_model(model).get_output_embeddings()
    if head is None:
        raise RunFailed(f"{type(inner_model(model)).__name__} has no output head")
    return head


def language_model_name(model: nn.Module) -> str:
    """Dotted name of the language model inside transformers' model, such as ``model.language_model``.

    Raises:
        RunFailed: the model does not tell its language model from the rest.
    """
    inner = inner_model(model)
    decoder = inner.get_decoder()
    for name, module in inner.named_modules():
        if module is decoder and name and module is not trunk(inner):
            return name
    raise RunFailed(
        f"cannot find the language model inside {type(inner).__name__}",
        remedy="name the LoRA targets in model.lora.targets and leave model.quantization out",
    )


def language_linear_names(model: nn.Module) -> list[str]:
    """Full names of the linear layers of the language model, output head excluded, in module order.

    Adapters do not count: a layer that carries one has the same name as before.
    """
    inner, prefix = inner_model(model), language_model_name(model)
    return [
        name.removesuffix(".base_layer")
        for name, module in inner.named_modules()
        if name.startswith(prefix + ".") and isinstance(module, nn.Linear) and ".lora_" not in name
    ]


def lora_target_pattern(model: nn.Module, targets: list[str] | None = None) -> str:
    """A regular expression for PEFT's ``target_modules``: linear layers of the language model only.

    Args:
        targets: name endings such as ``q_proj``; by default all linear layers.

    Raises:
        RecipeError: a target that no linear layer of the language model ends with.
    """
    names = language_linear_names(model)
    endings = sorted({name.rsplit(".", 1)[-1] for name in names})
    if targets is not None:
        unknown = [
            target for target in targets if not any(f".{name}".endswith(f".{target}") for name in names)
        ]
        if unknown:
            raise RecipeError(
                "model.lora",
                f"targets: no linear layer of the language model is called {', '.join(unknown)}",
                remedy=f"choose from {', '.join(endings)}",
            )
        endings = targets
    chosen = "|".join(re.escape(ending) for ending in endings)
    return rf"{re.escape(language_model_name(model))}\.(?:.*\.)?(?:{chosen})"


def modules_beside_language_model(model: nn.Module) -> list[str]:
    """Names of the modules that are not on the way to the language model: tower, projector, output head."""
    inner, path = inner_model(model), language_model_name(model).split(".")
    beside: list[str] = []
    module: nn.Module = inner
    for depth, step in enumerate(path):
        prefix = ".".join(path[:depth])
        beside += [
            f"{prefix}.{name}" if prefix else name for name, _ in module.named_children() if name != step
        ]
        module = getattr(module, step)
    return beside
