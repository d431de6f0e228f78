"""Several reward models on one base: the mean of their scores, less their disagreement.

A policy that is optimised against one reward model finds what that model gets wrong; models trained on other
resamples get other things wrong, so their spread tells where the score is not to be trusted (Coste et al. 2023,
"Reward Model Ensembles Help Mitigate Overoptimization"; uncertainty-weighted optimisation there, equation 4,
with the standard deviation in place of the variance, so that the penalty has the unit of the score).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reward_models.config import RewardConfig, read_config
from reward_models.scorer import LearnedReward
from toolkit.config.schema import ModelSpec
from toolkit.records import Conversation, ImageSource
from toolkit.rewards.base import PictureFeatures, RewardBatch, RewardOutput

if TYPE_CHECKING:
    from toolkit.models.loading import LoadedVlm

__all__ = ["EnsembleReward", "member_folders"]


def member_folders(directory: Path, config: RewardConfig) -> list[Path]:
    """The folders of an ensemble's members, each a reward model by itself."""
    return [directory / f"member-{index}" for index in range(config.members)]


class EnsembleReward(LearnedReward):
    """Mean of the members' scores − ``std_penalty`` × their standard deviation.

    Each member's scores are taken from the mean of its own held-out scores: what preferences leave free is no
    disagreement. Members are adapters on one base where they are adapters at all.

    Args:
        members: reward models.
        config: that of the ensemble.
    """

    def __init__(self, members: Sequence[LearnedReward], config: RewardConfig) -> None:
        first = members[0]
        super().__init__(first.model, config, batch_size=first.batch_size)
        self.members = tuple(members)

    @classmethod
    def load(
        cls, directory: str | Path, *, batch_size: int = 64, blank_images: bool | None = None
    ) -> EnsembleReward:
        """The ensemble in ``directory``, on a base of its own.

        Raises:
            CheckpointError: as ``LearnedReward.load``, for any member.
        """
        config = read_config(Path(directory))
        first, *others = member_folders(Path(directory), config)
        members = [LearnedReward.load(first, batch_size=batch_size, blank_images=blank_images)]
        if config.full_weights:
            members += [
                LearnedReward.load(folder, batch_size=batch_size, blank_images=blank_images)
                for folder in others
            ]
            return cls(members, config)
        spec = ModelSpec(id=str(first), dtype=config.dtype, quantization=config.quantization)  # type: ignore[arg-type]
        for index, folder in enumerate(others, start=1):
            vlm = members[0].model.vlm
            members.append(
                LearnedReward.attach(vlm, spec, folder, name=f"member_{index}", batch_size=batch_size)
            )
            members[-1].share_encoder(members[0])
        return cls(members, config)

    @classmethod
    def attach_all(
        cls, vlm: LoadedVlm, spec: ModelSpec, directory: Path, *, name: str, batch_size: int
    ) -> EnsembleReward:
        """The ensemble as frozen adapters ``<name>_<k>`` on a base that already serves a policy.

        Raises:
            CheckpointError: as ``LearnedReward.attach``, for any member.
        """
        config = read_config(directory)
        members = [
            LearnedReward.attach(vlm, spec, folder, name=f"{name}_{index}", batch_size=batch_size)
            for index, folder in enumerate(member_folders(directory, config))
        ]
        for member in members[1:]:
            member.share_encoder(members[0])
        return cls(members, config)

    def blanked(self) -> EnsembleReward:
        """The same ensemble, shown grey pictures."""
        return EnsembleReward([member.blanked() for member in self.members], self.config)

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Pessimistic scores of a batch, with ``mean`` and ``std`` as parts."""
        found = self.member_scores(
            [row.prompt for row in batch.rows],
            [row.images for row in batch.rows],
            batch.completions,
            pictures=batch.pictures,
        )
        parts = {"mean": found.mean(axis=0), "std": found.std(axis=0)}
        return RewardOutput(scores=self._pessimistic(found), parts=parts)

    def score(
        self,
        prompts: Sequence[Conversation],
        images: Sequence[tuple[ImageSource, ...]],
        completions: Sequence[str],
        *,
        label: str | None = None,
        pictures: PictureFeatures | None = None,
    ) -> NDArray[np.float64]:
        """Pessimistic scores (B,); NaN where a member gave no finite number."""
        found = self.member_scores(prompts, images, completions, label=label, pictures=pictures)
        return self._pessimistic(found)

    def member_scores(
        self,
        prompts: Sequence[Conversation],
        images: Sequence[tuple[ImageSource, ...]],
        completions: Sequence[str],
        *,
        label: str | None = None,
        pictures: PictureFeatures | None = None,
    ) -> NDArray[np.float64]:
        """Every member's scores (K, B), each from the mean of its own held-out scores."""
        found = []
        for index, member in enumerate(self.members, start=1):
            named = None if label is None else f"{label}, {index}/{len(self.members)}"
            scores = member.score(prompts, images, completions, label=named, pictures=pictures)
            found.append(scores - member.config.score_mean)
        return np.stack(found)

    def _pessimistic(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = scores.mean(axis=0) - self.config.std_penalty * scores.std(axis=0)
        return result
