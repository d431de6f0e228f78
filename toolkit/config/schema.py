"""What a recipe may say. One class a stage; every field the toolkit owns is here, and nothing else is accepted.

A ``trainer:`` block is not ours: it is passed to the trainer's own config class (TRL's ``SFTConfig`` and
``DPOConfig``, transformers' ``TrainingArguments``) and its keys are checked against that class by
``toolkit.config.trainer_keys``. Paths are relative to the current directory, except those of ``data``, which are
relative to ``data.root``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from toolkit.config.blocks import (
    CaptionSource,
    Count,
    DataSpec,
    DecodingSpec,
    Dtype,
    Fraction,
    GenerationSpec,
    KlSpec,
    LoraSpec,
    ModelSpec,
    OptimizerSpec,
    Part,
    Positive,
    PpoSpec,
    QuantizationSpec,
    RewardTerm,
    RolloutSpec,
    RowsSource,
    RunSpec,
    Source,
    Strict,
    TestDataSpec,
    VllmSpec,
    VqaSource,
)
from toolkit.config.guard_blocks import GuardSpec, PreferenceGuardSpec
from toolkit.config.pipeline_blocks import PipelineRecipe, PipelineStage
from toolkit.config.reward_blocks import (
    BestOfNSpec,
    EnsembleSpec,
    OnPolicyPairsSpec,
    PreferencesRecipe,
    RewardLossSpec,
)

__all__ = [
    "CaptionSource",
    "Count",
    "DataSpec",
    "DecodingSpec",
    "Dtype",
    "BestOfNSpec",
    "EnsembleSpec",
    "EvalRecipe",
    "Fraction",
    "GenerationSpec",
    "GuardSpec",
    "JudgingRecipe",
    "KlSpec",
    "LoraSpec",
    "ModelSpec",
    "OnPolicyPairsSpec",
    "OptimizerSpec",
    "Part",
    "PipelineRecipe",
    "PipelineStage",
    "Positive",
    "PpoSpec",
    "PreferenceGuardSpec",
    "PreferenceRecipe",
    "PreferencesRecipe",
    "PretrainRecipe",
    "QuantizationSpec",
    "Recipe",
    "ReportRecipe",
    "RewardLossSpec",
    "RewardRecipe",
    "RewardTerm",
    "RlRecipe",
    "RolloutSpec",
    "RowsSource",
    "RunSpec",
    "SftRecipe",
    "Source",
    "Strict",
    "SystemSpec",
    "TestDataSpec",
    "TinyArchitecture",
    "TowerSpec",
    "VllmSpec",
    "VqaSource",
]


class TinyArchitecture(Strict):
    """Sizes of a LLaVA-like model built from scratch. Language sizes are multiples of 64 (4-bit blocks)."""

    image_size: Count = 48
    patch_size: Count = 8
    vision_hidden: Count = 128
    vision_layers: Count = 3
    vision_heads: Count = 4
    vision_mlp: Count = 256
    text_hidden: Count = 128
    text_layers: Count = 4
    text_heads: Count = 4
    text_mlp: Count = 384
    vocabulary: Count = 400


class TowerSpec(Strict):
    """Training of the vision tower alone, on what each patch shows (``labels``, a file below ``data.root``)."""

    labels: str = "patch_labels.npz"
    steps: Count = 3000
    batch_size: Count = 64
    learning_rate: Positive = 2e-3


class PretrainRecipe(Strict):
    """Train a tiny VLM from scratch: its tower on patches first (unless null), then all weights on text.

    ``tokenizer_texts`` is a text file below ``data.root``, one text a line, that the tokenizer is trained on.
    """

    stage: Literal["pretrain"]
    architecture: TinyArchitecture = TinyArchitecture()
    tower: TowerSpec | None = None
    data: DataSpec
    tokenizer_texts: str = "texts.txt"
    trainer: dict[str, Any] = {}
    run: RunSpec


class JudgingRecipe(Strict):
    """Second part of pretraining: say right behind a completion whether it fits the picture.

    ``judged`` is a file below ``data.root``; ``data.train`` holds plain texts, of which each picture brings
    ``plain_texts`` along. Trains the language model, all its weights. ``trainer`` is passed to
    ``transformers.TrainingArguments``.
    """

    stage: Literal["judging"]
    model: ModelSpec
    judged: str = "judged.jsonl"
    data: DataSpec
    plain_texts: Count = 3
    trainer: dict[str, Any] = {}
    run: RunSpec


class SftRecipe(Strict):
    """Supervised fine-tuning on captions and answers (TRL ``SFTTrainer``)."""

    stage: Literal["sft"]
    model: ModelSpec
    data: DataSpec
    trainer: dict[str, Any] = {}
    run: RunSpec


class RewardRecipe(Strict):
    """Train a reward model (VLM + scalar head) on preference pairs.

    ``blank_images`` replaces every picture by a grey one: the text-only baseline of the same recipe.
    ``ensemble`` trains several on resamples.
    ``source_weights`` scales the loss of rows by their ``source`` (1 where a source is not named).
    ``trainer`` is passed to ``transformers.TrainingArguments``.
    """

    stage: Literal["reward"]
    model: ModelSpec
    data: DataSpec
    loss: RewardLossSpec = RewardLossSpec()
    source_weights: dict[str, Positive] = {}
    head_learning_rate: Positive = 2e-3
    blank_images: bool = False
    ensemble: EnsembleSpec | None = None
    early_stopping_patience: Count | None = None
    trainer: dict[str, Any] = {}
    run: RunSpec


class RlRecipe(Strict):
    """PPO on a composite reward, from an SFT adapter."""

    stage: Literal["rl"]
    model: ModelSpec
    data: DataSpec
    rewards: list[RewardTerm] = Field(min_length=1)
    rollout: RolloutSpec = RolloutSpec()
    ppo: PpoSpec = PpoSpec()
    kl: KlSpec = KlSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    guards: GuardSpec = GuardSpec()
    run: RunSpec


class PreferenceRecipe(Strict):
    """Direct preference optimisation (TRL ``DPOTrainer``) on preference pairs."""

    stage: Literal["preference"]
    model: ModelSpec
    data: DataSpec
    guards: PreferenceGuardSpec = PreferenceGuardSpec()
    trainer: dict[str, Any] = {}
    run: RunSpec


class SystemSpec(Strict):
    """A checkpoint to evaluate, under the name of its row in the tables."""

    name: str
    model: ModelSpec


class EvalRecipe(Strict):
    """Decode the test split with every system and score it; the only stage that opens a test split.

    ``blind_from`` names the system that is also run with shuffled images. ``reward_model`` is a reward model's
    directory; ``differences`` are pairs [a, b] for which a − b is reported with a paired-bootstrap interval.
    ``on_policy_pairs`` measures the reward model on the completions of a system, ranked by ``scenes``' criterion.
    """

    stage: Literal["eval"]
    systems: list[SystemSpec] = Field(min_length=1)
    data: TestDataSpec
    train_references: str | None = None
    blind_from: str | None = None
    reward_model: str | None = None
    text_only_reward_model: str | None = None
    preference_pairs: list[str] = []
    on_policy_pairs: OnPolicyPairsSpec | None = None
    best_of_n: BestOfNSpec | None = None
    scenes: str | None = None
    differences: list[tuple[str, str]] = []
    generation: DecodingSpec = DecodingSpec()
    resamples: Count = 1000
    run: RunSpec


class ReportRecipe(Strict):
    """One self-contained HTML page from the run directories of a chain."""

    stage: Literal["report"]
    runs: list[str] = Field(min_length=1)
    evaluation: str
    samples: Count = 24
    run: RunSpec


Recipe = Annotated[
    PretrainRecipe
    | JudgingRecipe
    | SftRecipe
    | PreferencesRecipe
    | RewardRecipe
    | RlRecipe
    | PreferenceRecipe
    | EvalRecipe
    | ReportRecipe
    | PipelineRecipe,
    Field(discriminator="stage"),
]
