"""``reward_config.json``: what a reward model was trained on and how its scores lie. Loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from toolkit.config.schema import QuantizationSpec
from toolkit.errors import CheckpointError

__all__ = ["CONFIG_FILE", "HEAD_FILE", "RewardConfig", "mismatches", "read_config"]

CONFIG_FILE = "reward_config.json"
HEAD_FILE = "reward_head.safetensors"


class RewardConfig(BaseModel):
    """What a reward model was trained on, and how its scores lie.

    ``base_weights`` are SHA-256 digests of a local base's weight files, by name (empty for a base on the
    hub, which its revision identifies, and for bases over 1 GiB). ``score_mean`` and ``score_std`` are over
    the completions of the validation pairs, ``held_out_accuracy`` is the share of those pairs ranked right.
    An ensemble has its ``members`` in folders of their own; its score is their mean − ``std_penalty`` × std.
    ``recalibrated`` says in what the base, precision or processor that these figures were measured with differ
    from those of the training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_id: str
    base_revision: str | None = None
    base_weights: dict[str, str] = {}
    chat_template_sha256: str
    image_size: dict[str, Any]
    full_weights: bool = False
    dtype: str
    quantization: QuantizationSpec | None = None
    blank_images: bool = False
    score_mean: float = 0.0
    score_std: float = 1.0
    held_out_accuracy: float | None = None
    held_out_pairs: int = 0
    members: int = 0
    std_penalty: float = 0.0
    recalibrated: list[str] = []


def mismatches(trained: RewardConfig, present: RewardConfig) -> list[str]:
    """Reasons why ``present`` would give other scores than ``trained``; empty when they agree."""
    reasons = []
    if trained.full_weights:
        same_base = True  # the weights are in the checkpoint itself
    elif trained.base_weights and present.base_weights:
        same_base = trained.base_weights == present.base_weights
    else:
        same_base = (trained.base_id, trained.base_revision) == (present.base_id, present.base_revision)
    if not same_base:
        reasons.append(f"base model: trained on {_base_of(trained)}, found {_base_of(present)}")
    if trained.chat_template_sha256 != present.chat_template_sha256:
        reasons.append("chat template: not the one it was trained with (SHA-256 differs)")
    if trained.image_size != present.image_size:
        reasons.append(f"image size: trained with {trained.image_size}, found {present.image_size}")
    if (trained.dtype, trained.quantization) != (present.dtype, present.quantization):
        reasons.append(f"precision: trained with {_precision_of(trained)}, found {_precision_of(present)}")
    return reasons


def read_config(directory: Path) -> RewardConfig:
    """The configuration in ``directory``.

    Raises:
        CheckpointError: no reward model there, or a damaged configuration.
    """
    missing = [name for name in (CONFIG_FILE, HEAD_FILE) if not (directory / name).is_file()]
    if missing and not (directory / "member-0" / HEAD_FILE).is_file():
        found = (directory / "final" / CONFIG_FILE).is_file()
        remedy = (
            f"did you mean {directory / 'final'}?" if found else "give the final/ directory of a reward run"
        )
        raise CheckpointError(
            f"{directory} is no reward model: {' and '.join(missing)} missing", remedy=remedy
        )
    try:
        return RewardConfig.model_validate_json((directory / CONFIG_FILE).read_text(encoding="utf-8"))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise CheckpointError(f"{directory / CONFIG_FILE} is damaged: {'; '.join(lines)}") from error


def _base_of(config: RewardConfig) -> str:
    revision = f" at revision {config.base_revision}" if config.base_revision else ""
    return f"{config.base_id}{revision}"


def _precision_of(config: RewardConfig) -> str:
    if config.quantization is None:
        return config.dtype
    quantization = config.quantization
    return f"{quantization.bits}-bit {quantization.type} with {quantization.compute_dtype} compute ({config.dtype})"
