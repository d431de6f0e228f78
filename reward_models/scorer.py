"""A trained reward model as a callable: for RL, best-of-n, preference building and the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file

from reward_models.checkpoint import describe, load_head, load_reward_model, refuse_mismatch
from reward_models.config import RewardConfig, read_config
from reward_models.grouping import CompletionGroup, batches, group_completions
from reward_models.model import VlmRewardModel
from reward_models.prompts import PromptEncoder
from toolkit.config.schema import ModelSpec
from toolkit.errors import CheckpointError
from toolkit.models.encoding import collate
from toolkit.models.loading import LoadedVlm
from toolkit.models.packing import can_pack, pack_completions
from toolkit.models.roles import REWARD, add_role, roles_of
from toolkit.models.structure import inner_model, language_model_name
from toolkit.records import Conversation, ImageSource
from toolkit.rewards.base import PictureFeatures, RewardBatch, RewardOutput
from toolkit.runs.progress import Progress

__all__ = ["LearnedReward"]

_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PACKED = 8
"""Completions behind one prompt at most: the attention mask grows with the square of their length."""


class LearnedReward:
    """Scores completions with a reward model; implements ``toolkit.rewards.base.Reward``.

    A score is a log-odds: sigmoid(a − b) is the probability that a rater prefers a over b. A completion is
    scored as it reads, with an end token behind it, whether or not it was cut; what a missing end costs is
    said by the RL recipe. A row's score depends on nothing else in the batch.

    Args:
        model: the reward model.
        config: what it was trained on.
        batch_size: completions in one forward.
        blank_images: score with grey pictures in place of the real ones.
    """

    name = "learned"
    scale = "log-odds of being preferred; mean and spread on held-out completions are in reward_config.json"
    may_be_constant = False
    background = False

    def __init__(
        self,
        model: VlmRewardModel,
        config: RewardConfig,
        *,
        batch_size: int = 64,
        blank_images: bool | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self.batch_size = batch_size
        blank = config.blank_images if blank_images is None else blank_images
        self.encoder = PromptEncoder(model.vlm, blank_images=blank)
        self._packs = can_pack(model.vlm)

    @classmethod
    def load(
        cls, directory: str | Path, *, batch_size: int = 64, blank_images: bool | None = None
    ) -> LearnedReward:
        """The reward model (or ensemble) in ``directory``, on a base of its own.

        Raises:
            CheckpointError: no reward model there, or it does not fit its base, template or precision any
            more.
        """
        if cls is LearnedReward and read_config(Path(directory)).members:
            from reward_models.ensemble import EnsembleReward

            return EnsembleReward.load(directory, batch_size=batch_size, blank_images=blank_images)
        model, config = load_reward_model(Path(directory))
        return cls(model, config, batch_size=batch_size, blank_images=blank_images)

    @classmethod
    def attach(
        cls,
        vlm: LoadedVlm,
        spec: ModelSpec,
        directory: str | Path,
        *,
        name: str = REWARD,
        batch_size: int = 64,
    ) -> LearnedReward:
        """The reward model in ``directory`` as a frozen adapter on a base that already serves a policy.

        Gives the scores of the standalone model (same base, precision and processor are checked), for the
        memory of an adapter.

        Args:
            vlm: the policy, a PEFT model.
            spec: how the policy was loaded (precision and quantisation).
            directory: the reward model.
            name: the adapter's name on the policy's base; where one has it already, a number is added.
            batch_size: completions in one forward.

        Raises:
            CheckpointError: no reward adapter there, one of other parts than the language model, or it was trained on
            another base, precision or processor.
        """
        folder = Path(directory)
        config = read_config(folder)
        if config.members:
            from reward_models.ensemble import EnsembleReward

            return EnsembleReward.attach_all(vlm, spec, folder, name=name, batch_size=batch_size)
        name = _free_name(vlm, name)
        refuse_mismatch(folder, config, describe(vlm, spec))
        if not isinstance(vlm.model, PeftModel) or not (folder / _ADAPTER_WEIGHTS).is_file():
            raise CheckpointError(
                f"{folder} cannot be attached: both the policy and the reward model must be adapters",
                remedy="load the reward model on a base of its own",
            )
        weights = load_file(str(folder / _ADAPTER_WEIGHTS))
        inside = f".{language_model_name(inner_model(vlm.model))}."
        beside = [key for key in weights if inside not in key]
        if beside:
            raise CheckpointError(
                f"{folder} cannot be attached: it adapts more than the language model, such as {beside[0]}, and the "
                "policy's picture features are not those that it was trained on",
                remedy="load the reward model on a base of its own",
            )
        add_role(vlm.model, name, config=LoraConfig.from_pretrained(str(folder)))
        set_peft_model_state_dict(vlm.model, weights, adapter_name=name)
        head = load_head(folder, vlm.hidden_size).to(vlm.device).requires_grad_(False)
        return cls(VlmRewardModel(vlm, head, adapter=name), config, batch_size=batch_size)

    def blanked(self) -> LearnedReward:
        """The same model, shown grey pictures."""
        return LearnedReward(self.model, self.config, batch_size=self.batch_size, blank_images=True)

    def share_encoder(self, other: LearnedReward) -> None:
        """Use the encoded prompts and features of ``other``, which must be on the same base."""
        if other.model.vlm is not self.model.vlm:
            raise ValueError("encodings are shared by reward models on one base only")
        self.encoder = other.encoder

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Raw scores of a batch; NaN where the model gave no finite number."""
        prompts = [row.prompt for row in batch.rows]
        images = [row.images for row in batch.rows]
        return RewardOutput(scores=self.score(prompts, images, batch.completions, pictures=batch.pictures))

    def score(
        self,
        prompts: Sequence[Conversation],
        images: Sequence[tuple[ImageSource, ...]],
        completions: Sequence[str],
        *,
        label: str | None = None,
        pictures: PictureFeatures | None = None,
    ) -> NDArray[np.float64]:
        """Raw scores (B,) of ``completions`` to ``prompts`` with ``images``, one each.

        Completions to the same prompt and pictures share one forward of them where the model allows it
        (``toolkit.models.packing``).

        Args:
            prompts: one a row.
            images: pictures of each row's prompt.
            completions: text of each row.
            label: shows progress under this name.
            pictures: features that are there already, used where they come from this model's base.

        Raises:
            DataError: a picture cannot be read, or image blocks and pictures differ in number.
        """
        scores = np.empty(len(completions), dtype=np.float64)
        keys = self.encoder.keys(images)
        groups = group_completions(prompts, images, keys, completions, most=_PACKED if self._packs else 1)
        was_training = self.model.model.training  # of the policy too, where the base is shared
        self.model.eval()
        bar = nullcontext() if label is None else Progress(len(completions), label)
        with torch.no_grad(), bar as shown:
            for part in batches(groups, self.batch_size):
                self._score(part, scores, pictures)
                if shown is not None:
                    shown.update(sum(len(rows) for group in part for rows in group.rows.values()))
        self.model.train(was_training)
        scores[~np.isfinite(scores)] = np.nan
        return scores

    def _score(
        self,
        groups: Sequence[CompletionGroup],
        scores: NDArray[np.float64],
        pictures: PictureFeatures | None,
    ) -> None:
        """Write the scores of the groups' rows into ``scores``, from one forward."""
        prompts, images = [group.prompt for group in groups], [group.images for group in groups]
        encoded = self.encoder.encode(prompts, images, pictures=pictures)
        texts = [self.encoder.completions(group.texts) for group in groups]
        if self._packs:
            batch, ends = pack_completions(self.model.vlm, encoded, texts)
            found = self.model(batch, ends)
        else:
            batch = collate(self.model.vlm, encoded, [text for (text,) in texts], padding_side="right")
            found = self.model(batch).unsqueeze(1)
        for group, row_scores in zip(groups, found.double().cpu().numpy(), strict=True):
            for rows, score in zip(group.rows.values(), row_scores, strict=False):
                scores[rows] = score

    def describe(self) -> dict[str, Any]:
        """The configuration as JSON values, for logs and reports."""
        described: dict[str, Any] = json.loads(self.config.model_dump_json())
        return described


def _free_name(vlm: LoadedVlm, name: str) -> str:
    """``name``, or where the model has an adapter of this name already, the first of ``name_2 name_3 …`` it lacks."""
    taken = roles_of(vlm.model)
    numbered = (f"{name}_{number}" for number in count(2))
    return name if name not in taken else next(other for other in numbered if other not in taken)
