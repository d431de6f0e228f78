"""Loading of processors, including those of Qwen-VL on machines without torchvision."""

from __future__ import annotations

import importlib.util
from typing import Any

from transformers import AutoProcessor, PretrainedConfig

from toolkit.errors import CheckpointError, EnvironmentLacking

__all__ = ["load_processor"]


def load_processor(directory: str, config: PretrainedConfig, *, revision: str | None, local: bool) -> Any:
    """The checkpoint's processor, with padding on the left.

    Without torchvision the video part of Qwen-VL's processor cannot be built; an image-only one takes its
    place.

    Raises:
        CheckpointError: the processor's files are missing, damaged, or without a chat template.
        EnvironmentLacking: the processor needs a library that is not installed.
    """
    loader = AutoProcessor
    if config.model_type.startswith("qwen") and importlib.util.find_spec("torchvision") is None:
        from toolkit.models.families.qwen2_5_vl import ImageOnlyQwenProcessor

        loader = ImageOnlyQwenProcessor
    try:
        processor = loader.from_pretrained(
            directory, revision=revision, local_files_only=local, trust_remote_code=False
        )
    except ImportError as error:
        raise EnvironmentLacking(f"the processor of {directory} cannot be built: {error}") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"cannot load the processor of {directory}: {error}",
            remedy="copy the processor's files (processor_config.json, tokenizer.json, …) beside the model",
        ) from error
    if getattr(processor, "tokenizer", None) is None or not processor.chat_template:
        raise CheckpointError(
            f"{directory} has no processor with a tokenizer and a chat template",
            remedy="use an instruction-tuned model, or put chat_template.jinja beside it",
        )
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # masks come from lengths, never from ids
    return processor
