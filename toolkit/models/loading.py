"""From ``ModelSpec`` to a model in memory: base, quantisation, adapter, processor and device."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PretrainedConfig, PreTrainedModel

from toolkit.config.schema import LoraSpec, ModelSpec
from toolkit.errors import CheckpointError, EnvironmentLacking, RecipeError
from toolkit.models import guards
from toolkit.models.families import Family, family_of
from toolkit.models.processors import load_processor
from toolkit.models.quantization import bitsandbytes_config, check_quantized
from toolkit.models.roles import POLICY, checkpoint_contexts, set_trainable
from toolkit.models.sources import ModelSource, find_source
from toolkit.models.structure import inner_model, lora_target_pattern

__all__ = ["LoadedVlm", "disable_dropout", "enable_gradient_checkpointing", "load_vlm", "lora_config"]

_logger = logging.getLogger("vlm_rlhf.models.loading")


@dataclass
class LoadedVlm:
    """A model with all that is needed to use it.

    Attributes:
        model: transformers' model, or a PEFT model around it.
        processor: tokenizer and image processor with the chat template.
        family: what this type of model does in its own way.
        device: where the model is.
        base_id: hub id or directory of the base model.
        base_revision: revision of the base on the hub, or None.
    """

    model: nn.Module
    processor: Any
    family: Family
    device: torch.device
    base_id: str
    base_revision: str | None = None

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def hidden_size(self) -> int:
        """Width of the language model's hidden states."""
        return int(inner_model(self.model).config.get_text_config().hidden_size)

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a completion: the tokenizer's, and those of the model's generation settings."""
        configured = inner_model(self.model).generation_config.eos_token_id
        listed = configured if isinstance(configured, list) else [configured]
        return frozenset(i for i in [*listed, self.tokenizer.eos_token_id] if i is not None)


def load_vlm(spec: ModelSpec, *, trainable: bool, adapter: str = POLICY) -> LoadedVlm:
    """Load the model that ``spec`` names, on the GPU when there is one.

    Args:
        trainable: False freezes everything and sets evaluation mode. True trains the adapter (the loaded one,
            or a new one for ``spec.lora``), or all weights where there is no adapter, in training mode.
        adapter: the name that an adapter gets in memory.

    Raises:
        CheckpointError: no usable checkpoint under ``spec.id``.
        RecipeError: settings that contradict each other or the model.
        EnvironmentLacking: a missing or broken library.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    guards.check_torchvision()
    guards.check_precision(spec, on_cpu=device.type == "cpu")
    source = find_source(spec.id, spec.revision)
    _check_adapter_settings(spec, source, trainable)
    config = _read(AutoConfig.from_pretrained, source)
    model: nn.Module = _load_base(spec, source, config, device)
    family = family_of(config)
    processor = load_processor(source.processor, config, revision=source.revision, local=source.local)
    if spec.max_pixels is not None:
        family.limit_pixels(processor, spec.max_pixels)
    model = _with_adapter(model, spec, source, trainable, adapter)
    _declare_training(model, spec, trainable, adapter)
    vlm = LoadedVlm(model, processor, family, device, source.base, source.revision)
    _logger.info("loaded %s (%s) on %s", spec.id, family.name, device)
    return vlm


def _check_adapter_settings(spec: ModelSpec, source: ModelSource, trainable: bool) -> None:
    if source.adapter_config is not None and spec.lora is not None:
        have = source.adapter_config.get("r"), source.adapter_config.get("lora_alpha")
        if have != (spec.lora.rank, spec.lora.alpha):
            raise RecipeError(
                "model.lora",
                f"rank, alpha: found {spec.lora.rank}, {spec.lora.alpha}; the adapter {spec.id} has "
                f"{have[0]}, {have[1]}",
                remedy="leave model.lora out to go on with that adapter, or name its base as model.id",
            )
    if trainable and spec.quantization is not None and spec.lora is None and source.adapter is None:
        raise RecipeError(
            "model.quantization",
            f"{spec.quantization.bits}-bit weights cannot be trained themselves",
            remedy="set model.lora",
        )


def _read(loader: Any, source: ModelSource, **arguments: Any) -> Any:
    """A ``from_pretrained`` of the base with safe settings; a checkpoint's fault is a CheckpointError."""
    try:
        return loader(
            source.base,
            revision=source.revision,
            local_files_only=source.local,
            trust_remote_code=False,
            **arguments,
        )
    except ImportError as error:
        raise EnvironmentLacking(f"cannot load {source.base}: {error}") from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        remedy = (
            "the directory must hold config.json, *.safetensors and the processor's files"
            if source.local
            else "check the name; without network it must be in the Hugging Face cache or a directory"
        )
        raise CheckpointError(f"cannot load {source.base}: {_first_line(error)}", remedy=remedy) from error


def _first_line(error: Exception) -> str:
    """What went wrong; the lines below it list every model type there is."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _load_base(
    spec: ModelSpec, source: ModelSource, config: PretrainedConfig, device: torch.device
) -> PreTrainedModel:
    arguments: dict[str, Any] = {
        "dtype": getattr(torch, spec.dtype),
        "attn_implementation": spec.attn_implementation,
        "use_safetensors": True,
    }
    if spec.quantization is not None:
        guards.keep_bitsandbytes_weights_unpacked()
        arguments["quantization_config"] = bitsandbytes_config(spec.quantization, config)
        arguments["device_map"] = {"": device}
    model, report = _read(
        AutoModelForImageTextToText.from_pretrained, source, output_loading_info=True, **arguments
    )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise CheckpointError(
            f"{source.base} lacks {len(missing)} of the model's weights, such as {missing[0]}",
            remedy="use a complete checkpoint; missing weights would be random",
        )
    if spec.quantization is not None:
        check_quantized(model, spec.quantization.bits)
        return model
    return model.to(device)


def _with_adapter(
    model: PreTrainedModel, spec: ModelSpec, source: ModelSource, trainable: bool, adapter: str
) -> nn.Module:
    if source.adapter is not None:
        return _load_adapter(model, source.adapter, adapter, trainable)
    if spec.lora is not None and trainable:
        return get_peft_model(model, lora_config(model, spec.lora), adapter_name=adapter)
    return model


def _load_adapter(model: PreTrainedModel, directory: Path, name: str, trainable: bool) -> PeftModel:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return PeftModel.from_pretrained(model, directory, adapter_name=name, is_trainable=trainable)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError, UserWarning) as error:
        raise CheckpointError(
            f"cannot load the adapter {directory}: {error}",
            remedy="the adapter must be complete and belong to this base model",
        ) from error


def lora_config(model: nn.Module, spec: LoraSpec) -> LoraConfig:
    """PEFT's settings for an adapter on the linear layers of the language model and nowhere else."""
    return LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=lora_target_pattern(model, spec.targets),
        task_type="CAUSAL_LM",
    )


def _declare_training(model: nn.Module, spec: ModelSpec, trainable: bool, adapter: str) -> None:
    if not trainable:
        model.requires_grad_(False)
        model.eval()
        return
    if isinstance(model, PeftModel):
        set_trainable(model, [adapter])
    else:
        model.requires_grad_(True)
    model.train()
    if spec.gradient_checkpointing:
        enable_gradient_checkpointing(model)


def enable_gradient_checkpointing(model: nn.Module) -> None:
    """Recompute activations in backward (non-reentrant), each under the role of its forward."""
    settings: dict[str, Any] = {"use_reentrant": False}
    if isinstance(model, PeftModel):
        settings["context_fn"] = checkpoint_contexts(model)
    inner_model(model).gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability to zero: importance ratios start at exactly 1, in training mode too."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
