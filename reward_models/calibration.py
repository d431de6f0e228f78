"""A reward model as it is at hand: on another base, precision, template or processor, measured anew.

The same weights there give other scores, so loading refuses. Whoever wants them all the same has them measured: the
mean and spread of the new scores, and whether they still rank pairs right, go into a checkpoint of its own that says
what was changed.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from reward_models.checkpoint import describe, load_present
from reward_models.config import CONFIG_FILE, RewardConfig, mismatches, read_config
from reward_models.ensemble import EnsembleReward, member_folders
from reward_models.evaluation import score_rows
from reward_models.measures import accuracy
from reward_models.scorer import LearnedReward
from toolkit.config.schema import ModelSpec, QuantizationSpec
from toolkit.errors import CheckpointError, DataError, RunFailed
from toolkit.records import PreferenceRow
from toolkit.runs.atomic import atomic_directory

__all__ = ["Precision", "Recalibration", "recalibrate"]

_LOG = logging.getLogger("vlm_rlhf.reward")
_ADAPTER_CONFIG = "adapter_config.json"
_STANDARD_ERRORS = 2.0


@dataclass(frozen=True)
class Precision:
    """How the base is held; None keeps what the reward model was trained with, ``bits`` 16 is no quantisation."""

    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    bits: Literal[4, 8, 16] | None = None

    def of(self, trained: RewardConfig, folder: Path) -> ModelSpec:
        """The model in ``folder``, held this way."""
        quantization = trained.quantization
        if self.bits == 16:
            quantization = None
        elif self.bits is not None and (quantization is None or quantization.bits != self.bits):
            quantization = QuantizationSpec(bits=self.bits)
        dtype = self.dtype or trained.dtype
        return ModelSpec(id=str(folder), dtype=dtype, quantization=quantization)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Recalibration:
    """What was measured: configurations before and after, and every reason why the old figures did not hold."""

    before: RewardConfig
    after: RewardConfig
    reasons: list[str]


def recalibrate(
    checkpoint: Path,
    rows: Sequence[PreferenceRow],
    out: Path,
    *,
    base: str | None = None,
    precision: Precision | None = None,
) -> Recalibration:
    """Copy ``checkpoint`` to ``out`` with ``score_mean``, ``score_std`` and accuracy measured on ``rows``.

    The copy loads, and attaches to policies, where its scores were measured. The original stays as it is.

    Args:
        checkpoint: a reward model or an ensemble.
        rows: held-out pairs.
        out: where the copy goes; must not exist.
        base: another base model, for adapters.
        precision: another precision of the base.

    Raises:
        CheckpointError: no reward model there, ``out`` exists, or ``base`` is given for full weights.
        DataError: no rows.
        RunFailed: a score is no finite number.
    """
    config = read_config(checkpoint)
    if not rows:
        raise DataError("preference pairs", "there are none; scores are measured on at least one pair")
    if out.exists():
        raise CheckpointError(f"{out} exists", remedy="name a folder that does not")
    if base is not None and config.full_weights:
        raise CheckpointError(
            f"{checkpoint} holds all weights: it has no base to replace", remedy="leave out --base"
        )
    how = precision or Precision()
    with atomic_directory(out) as folder:
        shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
        if config.members:
            members = [_recalibrated(member, rows, base, how) for member in member_folders(folder, config)]
            found = _ensemble_recalibrated(folder, config, members, rows)
        else:
            found = _recalibrated(folder, rows, base, how)
    _warn_of_chance(found.after)
    return found


def _warn_of_chance(config: RewardConfig) -> None:
    """A reward model whose accuracy may be that of a coin is none."""
    share = config.held_out_accuracy or 0.0
    error = math.sqrt(0.25 / config.held_out_pairs)
    if share < 0.5 + _STANDARD_ERRORS * error:
        _LOG.warning(
            "%.1f %% of %d pairs are ranked right here: no better than chance, within the noise",
            100 * share,
            config.held_out_pairs,
        )


def _recalibrated(
    folder: Path, rows: Sequence[PreferenceRow], base: str | None, how: Precision
) -> Recalibration:
    before = read_config(folder)
    if base is not None:
        path = folder / _ADAPTER_CONFIG
        named = str(Path(base).resolve()) if Path(base).is_dir() else base
        adapter = json.loads(path.read_text(encoding="utf-8"))
        adapter |= {"base_model_name_or_path": named, "revision": None}
        path.write_text(json.dumps(adapter, indent=2) + "\n", encoding="utf-8")
    spec = how.of(before, folder)
    model = load_present(folder, spec)
    present = describe(model.vlm, spec)
    reasons = mismatches(before, present)
    names = (
        "base_id",
        "base_revision",
        "base_weights",
        "chat_template_sha256",
        "image_size",
        "dtype",
        "quantization",
    )
    at_hand = {name: getattr(present, name) for name in names}
    known = before.model_copy(update={**at_hand, "recalibrated": [*before.recalibrated, *reasons]})
    after = _measured(LearnedReward(model, known), rows)
    _write(folder, after)
    return Recalibration(before, after, reasons)


def _ensemble_recalibrated(
    folder: Path, before: RewardConfig, members: Sequence[Recalibration], rows: Sequence[PreferenceRow]
) -> Recalibration:
    """The ensemble's own figures, from its members as they are now."""
    own = {name: getattr(before, name) for name in ("members", "std_penalty", "blank_images")}
    _write(folder, members[0].after.model_copy(update=own))
    reward = EnsembleReward.load(folder)
    after = _measured(reward, rows)
    _write(folder, after)
    return Recalibration(before, after, members[0].reasons)


def _measured(reward: LearnedReward, rows: Sequence[PreferenceRow]) -> RewardConfig:
    chosen, rejected = score_rows(reward, rows, label="pairs")
    both = np.concatenate([chosen, rejected])
    if not np.isfinite(both).all():
        raise RunFailed(f"{int((~np.isfinite(both)).sum())} of {len(both)} scores are no finite numbers")
    return reward.config.model_copy(
        update={
            "score_mean": float(both.mean()),
            "score_std": float(both.std()),
            "held_out_accuracy": accuracy(chosen, rejected),
            "held_out_pairs": len(rows),
        }
    )


def _write(folder: Path, config: RewardConfig) -> None:
    (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
