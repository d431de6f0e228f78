"""Quantisation of the language model's linear layers, and the check that exactly those were quantised."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, PretrainedConfig

from toolkit.config.schema import QuantizationSpec
from toolkit.errors import RunFailed
from toolkit.models.structure import inner_model, language_linear_names, modules_beside_language_model

__all__ = ["bitsandbytes_config", "check_quantized", "quantized_linear_names"]


def bitsandbytes_config(spec: QuantizationSpec, model_config: PretrainedConfig) -> BitsAndBytesConfig:
    """transformers' configuration that leaves tower, projector and output head alone.

    The names to skip are read from the model's own structure (built without memory), because a name that
    matches nothing is accepted silently: the tower would be quantised, at a real loss of quality.
    """
    with init_empty_weights():
        skeleton = AutoModelForImageTextToText.from_config(model_config)
    return BitsAndBytesConfig(
        load_in_4bit=spec.bits == 4,
        load_in_8bit=spec.bits == 8,
        llm_int8_skip_modules=modules_beside_language_model(skeleton),
        bnb_4bit_quant_type=spec.type,
        bnb_4bit_use_double_quant=spec.double,
        bnb_4bit_compute_dtype=getattr(torch, spec.compute_dtype),
        bnb_4bit_quant_storage=getattr(torch, spec.storage_dtype),
    )


def quantized_linear_names(model: nn.Module, bits: int = 4) -> list[str]:
    """Full names of the modules that hold ``bits``-bit weights (``Linear4bit`` or ``Linear8bitLt``)."""
    import bitsandbytes

    wanted: Any = bitsandbytes.nn.Linear4bit if bits == 4 else bitsandbytes.nn.Linear8bitLt
    return [
        name.removesuffix(".base_layer")
        for name, module in inner_model(model).named_modules()
        if isinstance(module, wanted)
    ]


def check_quantized(model: nn.Module, bits: int) -> None:
    """Assert on the loaded model: every linear layer of the language model is quantised, and no other module.

    Raises:
        RunFailed: anything else.
    """
    quantized, expected = set(quantized_linear_names(model, bits)), set(language_linear_names(model))
    if quantized == expected and expected:
        return
    missing, extra = sorted(expected - quantized), sorted(quantized - expected)
    raise RunFailed(
        f"{bits}-bit loading went wrong: {len(missing)} language layers are not quantised {missing[:3]}, "
        f"{len(extra)} other layers are {extra[:3]}",
        remedy="use the versions of transformers and bitsandbytes that this package was tested with",
    )
