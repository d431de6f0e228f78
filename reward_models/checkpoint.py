"""Reward models on disk: adapter (or full weights), ``reward_head.safetensors`` and ``reward_config.json``.

The same adapter on another base, at another precision, under another chat template or image size is another
reward; what was trained is written down, and loading refuses anything else with the reason.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from reward_models.config import CONFIG_FILE, HEAD_FILE, RewardConfig, mismatches, read_config
from reward_models.model import VlmRewardModel
from toolkit.config.schema import ModelSpec
from toolkit.errors import CheckpointError
from toolkit.models.heads import ScalarHead
from toolkit.models.loading import LoadedVlm, load_vlm
from toolkit.models.roles import POLICY
from toolkit.runs.inputs import file_sha256
from toolkit.runs.model_card import write_model_card

__all__ = [
    "describe",
    "load_head",
    "load_present",
    "load_reward_model",
    "refuse_mismatch",
    "save_reward_model",
]

_HASHED_BYTES = 1 << 30


def describe(vlm: LoadedVlm, spec: ModelSpec, **values: Any) -> RewardConfig:
    """The configuration of a model loaded with ``spec``; ``values`` fills the fields measured after training."""
    template = vlm.processor.chat_template
    text = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
    return RewardConfig(
        base_id=vlm.base_id,
        base_revision=vlm.base_revision,
        base_weights=_weight_digests(vlm.base_id),
        chat_template_sha256=hashlib.sha256(text.encode()).hexdigest(),
        image_size=_image_size(vlm.processor),
        full_weights=not isinstance(vlm.model, PeftModel),
        dtype=spec.dtype,
        quantization=spec.quantization,
        **values,
    )


def save_reward_model(
    model: VlmRewardModel,
    directory: Path,
    config: RewardConfig,
    *,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the model into an existing ``directory``: weights, head, configuration, processor, card; no pickle.

    Args:
        model: what to write.
        directory: where, within the directory of its run.
        config: what it was trained on, and its figures.
        tensors: the trained tensors by their names in ``model``, where the model itself holds parts of them
            only (ZeRO-3); without it they are read from the model.
    """
    options: dict[str, Any] = {}
    if tensors is not None:
        options["state_dict"] = _below("model.", tensors)
    if isinstance(model.model, PeftModel):
        options["selected_adapters"] = [model.adapter or POLICY]
    model.model.save_pretrained(directory, **options)
    head = model.head.state_dict() if tensors is None else _below("head.", tensors)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in head.items()}
    save_file(whole, str(directory / HEAD_FILE))
    text = json.dumps(config.model_dump(mode="json"), indent=2, sort_keys=True)
    (directory / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    model.vlm.processor.save_pretrained(directory)
    write_model_card(directory, directory.parent)


def load_head(directory: Path, hidden_size: int) -> ScalarHead:
    """The scalar head in ``directory``.

    Raises:
        CheckpointError: the file is damaged, its width is not ``hidden_size``, or it holds NaN.
    """
    head = ScalarHead(hidden_size)
    path = directory / HEAD_FILE
    try:
        state = load_file(str(path))
        head.load_state_dict(state)
    except Exception as error:  # safetensors and torch raise their own kinds for damaged files
        raise CheckpointError(f"{path} does not fit a model of width {hidden_size}: {error}") from error
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise CheckpointError(f"{path} holds NaN or infinite weights", remedy="train the reward model again")
    return head


def load_reward_model(directory: Path) -> tuple[VlmRewardModel, RewardConfig]:
    """A frozen reward model on a base of its own, in the precision it was trained in.

    Raises:
        CheckpointError: no reward model there, or base, chat template or image size are not those of its
        training.
    """
    config = read_config(directory)
    spec = ModelSpec(id=str(directory), dtype=config.dtype, quantization=config.quantization)  # type: ignore[arg-type]
    model = load_present(directory, spec)
    refuse_mismatch(directory, config, describe(model.vlm, spec))
    return model, config


def load_present(directory: Path, spec: ModelSpec) -> VlmRewardModel:
    """The frozen reward model on what is there now, held as ``spec`` says, whatever it was trained on.

    Raises:
        CheckpointError: the head or the weights are damaged or do not fit each other.
    """
    vlm = load_vlm(spec, trainable=False)
    head = load_head(directory, vlm.hidden_size).to(vlm.device)
    return VlmRewardModel(vlm, head).requires_grad_(False).eval()


def refuse_mismatch(directory: Path, trained: RewardConfig, present: RewardConfig) -> None:
    """Raise ``CheckpointError`` with every reason why ``present`` would give other scores than ``trained``."""
    reasons = mismatches(trained, present)
    if reasons:
        raise CheckpointError(
            "\n  ".join([f"the reward model {directory} does not fit:", *reasons]),
            remedy="use the base, precision and processor it was trained with, or have its scores on these measured: "
            "python -m reward_models calibrate --help",
        )


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _weight_digests(base_id: str) -> dict[str, str]:
    files = sorted(Path(base_id).glob("*.safetensors"))
    if not files or sum(path.stat().st_size for path in files) > _HASHED_BYTES:
        return {}
    return {path.name: file_sha256(path) for path in files}


def _image_size(processor: Any) -> dict[str, Any]:
    size = processor.image_processor.size
    return {str(key): value for key, value in dict(size).items() if value is not None}
