"""Blocks of reward-model recipes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from toolkit.config.blocks import Count, Positive, Strict

__all__ = ["OnPolicyPairsSpec", "RewardLossSpec"]


class OnPolicyPairsSpec(Strict):
    """Held-out pairs from a system's own samples on the first ``images`` test pictures, without flipped labels."""

    system: str
    images: Count = 400
    completions_per_prompt: Annotated[int, Field(ge=2)] = 4
    temperature: Positive = 1.0


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
