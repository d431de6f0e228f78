"""Best-of-n: sample n completions a prompt, keep the one the reward likes best. The policy is not changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reward_models.ensemble import EnsembleReward
from reward_models.on_policy import Rater, sample_completions
from reward_models.over_optimisation import agreement_within_prompts, best_of_n_curve
from reward_models.scorer import LearnedReward
from toolkit.config.schema import GenerationSpec
from toolkit.errors import RunFailed
from toolkit.records import PromptRow

if TYPE_CHECKING:
    from toolkit.models.loading import LoadedVlm

__all__ = ["best_of_n", "measure_best_of_n"]

_FAILED_SHARE_MAX = 0.01


def best_of_n(
    vlm: LoadedVlm,
    rows: Sequence[PromptRow],
    reward: LearnedReward,
    *,
    n: int,
    generation: GenerationSpec,
    seed: int,
    file: Path,
) -> list[str]:
    """The completion of each row that ``reward`` scores highest among ``n`` sampled ones.

    Args:
        vlm: the policy.
        rows: what to answer.
        reward: a reward model or an ensemble.
        n: completions a row.
        generation: how to sample.
        seed: of the sampling.
        file: where samples are kept; a killed run goes on from it.

    Raises:
        RunFailed: more than 1 % of the scores are no finite numbers.
    """
    completions = sample_completions(vlm, rows, number=n, generation=generation, seed=seed, file=file)
    scores = scored(reward, rows, completions)["learned"]
    return [texts[int(best)] for texts, best in zip(completions, scores.argmax(axis=1), strict=True)]


def scored(
    reward: LearnedReward, rows: Sequence[PromptRow], completions: Sequence[Sequence[str]]
) -> dict[str, NDArray[np.float64]]:
    """Scores (P, N) of every completion: ``learned``, and of an ensemble its mean and its first member too.

    Scores that are no finite numbers count as worst.

    Raises:
        RunFailed: they are more than 1 %.
    """
    prompts = [row.prompt for row, texts in zip(rows, completions, strict=True) for _ in texts]
    images = [row.images for row, texts in zip(rows, completions, strict=True) for _ in texts]
    flat = [text for texts in completions for text in texts]
    if isinstance(reward, EnsembleReward):
        members = reward.member_scores(prompts, images, flat, label="best of n")
        mean, std = members.mean(axis=0), members.std(axis=0)
        found = {"learned": mean - reward.config.std_penalty * std, "mean": mean, "one member": members[0]}
    else:
        found = {"learned": reward.score(prompts, images, flat, label="best of n")}
    failed = int((~np.isfinite(found["learned"])).sum())
    if failed > _FAILED_SHARE_MAX * len(flat):
        raise RunFailed(f"{failed} of {len(flat)} scores of the reward model are no finite numbers")
    shape = (len(rows), -1)
    return {name: np.where(np.isfinite(s), s, -np.inf).reshape(shape) for name, s in found.items()}


def measure_best_of_n(
    reward: LearnedReward,
    rows: Sequence[PromptRow],
    completions: Sequence[Sequence[str]],
    criterion: Rater,
    others: Mapping[str, Rater],
) -> dict[str, Any]:
    """The over-optimisation curve, and how the learned reward agrees with other scores, within prompts.

    Args:
        reward: a reward model or an ensemble.
        rows: the prompts.
        completions: as many of each.
        criterion: what counts, which the reward model was not told.
        others: metrics to compare with, by name.
    """
    proxies = scored(reward, rows, completions)
    worth = _rated(rows, completions, criterion)
    measured = best_of_n_curve(proxies, worth)
    learned = proxies["learned"]
    compared = {"criterion": worth} | {
        name: _rated(rows, completions, rater) for name, rater in others.items()
    }
    compared["words"] = np.array([[float(len(text.split())) for text in texts] for texts in completions])
    agreement = {name: agreement_within_prompts(learned, scores) for name, scores in compared.items()}
    return {**measured, "prompts": len(rows), "agreement": agreement}


def _rated(
    rows: Sequence[PromptRow], completions: Sequence[Sequence[str]], rater: Rater
) -> NDArray[np.float64]:
    return np.array(
        [rater(row, texts) for row, texts in zip(rows, completions, strict=True)], dtype=np.float64
    )
