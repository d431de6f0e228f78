"""Recipes and blocks of preferences and reward models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from toolkit.config.blocks import (
    Count,
    DataSpec,
    Fraction,
    GenerationSpec,
    ModelSpec,
    Positive,
    RewardTerm,
    RunSpec,
    Strict,
)

__all__ = ["BestOfNSpec", "EnsembleSpec", "OnPolicyPairsSpec", "PreferencesRecipe", "RewardLossSpec"]


class OnPolicyPairsSpec(Strict):
    """Held-out pairs from a system's own samples on the first ``images`` test pictures, without flipped labels."""

    system: str
    images: Count = 400
    completions_per_prompt: Annotated[int, Field(ge=2)] = 4
    temperature: Positive = 1.0


class BestOfNSpec(Strict):
    """Sample a system ``samples`` times a picture, let the reward model choose, and see what a held-out criterion says.

    The criterion is the scenes' hidden one where ``scenes`` is given, CIDEr-D otherwise.
    """

    system: str
    images: Count = 200
    samples: Annotated[int, Field(ge=2)] = 16
    temperature: Positive = 1.0


class PreferencesRecipe(Strict):
    """Sample K completions a prompt from a policy and have them ranked: on-policy preference pairs.

    ``raters`` is ``simulated`` (scenes only: their hidden criterion, read from ``scenes``), ``metric`` (CIDEr-D
    against the references, VQA accuracy against the annotators) or a JSONL file of human preference rows, which
    is checked and copied instead of sampling. ``scenes`` names ``scenes.jsonl`` files below ``data.root``.
    ``rank_by`` ranks by the weighted sum of reward terms instead (metrics, reward models, your own function).
    ``min_margin`` is the least difference of scores that makes a pair; ``balance_lengths`` drops pairs until the
    longer text wins as often as the shorter one.
    """

    stage: Literal["preferences"]
    model: ModelSpec
    data: DataSpec
    completions_per_prompt: Annotated[int, Field(ge=2)] = 4
    pairs_per_prompt: Count = 1
    generation: GenerationSpec = GenerationSpec()
    raters: str = "simulated"
    scenes: list[str] = []
    rank_by: list[RewardTerm] = []
    min_margin: Annotated[float, Field(ge=0.0)] = 0.0
    balance_lengths: bool = False
    flip_fraction: Fraction = 0.1
    run: RunSpec


class EnsembleSpec(Strict):
    """Several reward models on resamples of the training rows; the score is mean − ``std_penalty`` × std."""

    members: Annotated[int, Field(ge=2)] = 4
    std_penalty: Annotated[float, Field(ge=0.0)] = 1.0
    bootstrap: bool = True


class RewardLossSpec(Strict):
    """The loss of a reward model, and a regulariser (``centring``) that keeps its scores around 0.

    ``bradley_terry`` learns who won (ties half), ``graded`` the share of raters that preferred the winner,
    ``rao_kupper`` wins and ties (``tie_threshold`` is the difference of scores that raters overlook),
    ``plackett_luce`` whole rankings. ``label_smoothing`` belongs to ``bradley_terry``.
    """

    kind: Literal["bradley_terry", "graded", "rao_kupper", "plackett_luce"] = "bradley_terry"
    centring: Annotated[float, Field(ge=0.0)] = 0.01
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    tie_threshold: Positive = 0.5
