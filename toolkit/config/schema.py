"""What a recipe may say. One class a stage; every field the toolkit owns is here, and nothing else is accepted.

A ``trainer:`` block is not ours: it is passed to the trainer's own config class (TRL's ``SFTConfig`` and
``DPOConfig``, transformers' ``TrainingArguments``) and its keys are checked against that class by
``toolkit.config.trainer_keys``. Paths are relative to the current directory, except those of ``data``, which are
relative to ``data.root``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Dtype = Literal["float32", "bfloat16", "float16"]
Part = Literal["all", "train", "val", "test"]


class Strict(BaseModel):
    """Unknown keys, values of another type than declared, NaN and infinities are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


# ---- model ---------------------------------------------------------------------------------------------------


class QuantizationSpec(Strict):
    """bitsandbytes quantisation of the language model's linear layers; tower, projector and heads stay whole."""

    bits: Literal[4, 8] = 4
    type: Literal["nf4", "fp4"] = "nf4"
    double: bool = True
    compute_dtype: Dtype = "float32"
    storage_dtype: Literal["uint8", "float32", "bfloat16", "float16"] = "uint8"


class LoraSpec(Strict):
    """A LoRA adapter on the language model's linear layers, or on ``targets`` (module name endings)."""

    rank: Count = 16
    alpha: Count = 32
    dropout: Fraction = 0.0
    targets: list[str] | None = None


class ModelSpec(Strict):
    """Which model, and how it is held in memory. ``id`` is a hub id, a model directory or an adapter directory."""

    id: str
    revision: str | None = None
    dtype: Dtype = "float32"
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    max_pixels: Count | None = None
    quantization: QuantizationSpec | None = None
    lora: LoraSpec | None = None
    gradient_checkpointing: bool = False


# ---- data ----------------------------------------------------------------------------------------------------


class CaptionSource(Strict):
    """Images and their reference captions: a COCO caption file or ``{file name: [caption, …]}``.

    ``part`` takes one part of a file that holds all splits, by a hash of the image id (80/10/10).
    """

    kind: Literal["caption"]
    captions: str
    images: str = "."
    prompt: str = "Describe the image."
    part: Part = "all"
    limit: Count | None = None


class VqaSource(Strict):
    """Images, VQA questions and annotations in the official format. ``suffix`` is appended to every question."""

    kind: Literal["vqa"]
    questions: str
    annotations: str
    images: str = "."
    suffix: str = ""
    part: Part = "all"
    limit: Count | None = None


class RowsSource(Strict):
    """JSON lines in TRL's vocabulary: prompt rows, prompt/completion rows or preference rows."""

    kind: Literal["rows"]
    file: str
    limit: Count | None = None


Source = Annotated[CaptionSource | VqaSource | RowsSource, Field(discriminator="kind")]


class DataSpec(Strict):
    """Training and validation sources. ``val`` serves early stopping, best checkpoint, calibration and guards."""

    root: str
    train: list[Source] = Field(min_length=1)
    val: list[Source] = []


class TestDataSpec(Strict):
    """The only place where a test split is named; read by the ``eval`` stage alone."""

    root: str
    test: list[Source] = Field(min_length=1)


# ---- run -----------------------------------------------------------------------------------------------------


class RunSpec(Strict):
    """Where a run writes and how often. Steps are optimizer steps (iterations in the ``rl`` stage)."""

    output_dir: str
    seed: int = 0
    log_every_steps: Count = 10
    save_every_steps: Count | None = None
    save_total_limit: Count = 2
    eval_every_steps: Count | None = None
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = []


class OptimizerSpec(Strict):
    """The optimizer of our own loops (TRL stages take theirs from ``trainer:``)."""

    name: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    learning_rate: Positive = 1e-4
    head_learning_rate: Positive = 2e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    max_grad_norm: Positive | None = 1.0


class DecodingSpec(Strict):
    """How ``eval`` decodes: always greedily, so there is no temperature to set."""

    max_new_tokens: Count = 32
    batch_size: Count = 64


class GenerationSpec(Strict):
    """How completions are sampled in the ``preferences`` stage."""

    max_new_tokens: Count = 32
    temperature: Positive = 1.0
    batch_size: Count = 64


# ---- rewards -------------------------------------------------------------------------------------------------


class RewardTerm(Strict):
    """One term of a composite reward: raw score → normalise → clip → weight."""

    term: str
    name: str | None = None
    weight: float = 1.0
    tasks: list[Literal["caption", "vqa"]] | None = None
    normalise: Literal["none", "running", "group", "frozen"] = "none"
    clip: tuple[float, float] | None = None
    schedule: Literal["constant", "linear_up", "linear_down"] = "constant"
    model: str | None = None
    options: dict[str, Any] = {}


# ---- stages --------------------------------------------------------------------------------------------------


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


class SftRecipe(Strict):
    """Supervised fine-tuning on captions and answers (TRL ``SFTTrainer``)."""

    stage: Literal["sft"]
    model: ModelSpec
    data: DataSpec
    trainer: dict[str, Any] = {}
    run: RunSpec


class PreferencesRecipe(Strict):
    """Sample K completions a prompt from a policy and have them ranked: on-policy preference pairs.

    ``raters`` is ``simulated`` (scenes only: their hidden criterion, read from ``scenes``), ``metric`` (CIDEr-D
    against the references, VQA accuracy against the annotators) or a JSONL file of human preference rows, which
    is checked and copied instead of sampling. ``scenes`` names ``scenes.jsonl`` files below ``data.root``.
    """

    stage: Literal["preferences"]
    model: ModelSpec
    data: DataSpec
    completions_per_prompt: Annotated[int, Field(ge=2)] = 4
    pairs_per_prompt: Count = 1
    generation: GenerationSpec = GenerationSpec()
    raters: str = "simulated"
    scenes: list[str] = []
    flip_fraction: Fraction = 0.1
    run: RunSpec


class RewardLossSpec(Strict):
    """Bradley–Terry loss, with a regulariser that keeps scores centred and optional label smoothing."""

    kind: Literal["bradley_terry"] = "bradley_terry"
    centring: Annotated[float, Field(ge=0.0)] = 0.01
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0


class RewardRecipe(Strict):
    """Train a reward model (VLM + scalar head) on preference pairs.

    ``blank_images`` replaces every picture by a grey one: the text-only baseline of the same recipe.
    ``trainer`` is passed to ``transformers.TrainingArguments``.
    """

    stage: Literal["reward"]
    model: ModelSpec
    data: DataSpec
    loss: RewardLossSpec = RewardLossSpec()
    head_learning_rate: Positive = 2e-3
    blank_images: bool = False
    early_stopping_patience: Count | None = None
    trainer: dict[str, Any] = {}
    run: RunSpec


class RolloutSpec(Strict):
    """Sampling of completions from the behaviour policy. Top-k and top-p are off: they break importance ratios."""

    prompts_per_iteration: Count = 64
    samples_per_prompt: Count = 1
    max_new_tokens: Count = 32
    temperature: Positive = 1.0
    generation_batch_size: Count = 64


class KlSpec(Strict):
    """KL penalty to the reference: k1 a token in the reward (Ziegler et al. 2019), fixed or adaptive coefficient."""

    coefficient: Annotated[float, Field(ge=0.0)] = 0.03
    controller: Literal["fixed", "adaptive"] = "fixed"
    target_nats: Positive = 6.0
    horizon: Positive = 10_000.0
    stop_epochs_above_nats: Positive | None = None


class PpoSpec(Strict):
    """Proximal policy optimisation (Schulman et al. 2017) over tokens."""

    iterations: Count = 40
    epochs: Count = 2
    minibatches: Count = 2
    gradient_accumulation: Count = 1
    estimator: Literal["gae"] = "gae"
    gamma: Fraction = 1.0
    gae_lambda: Fraction = 0.95
    clip: Positive = 0.2
    value_clip: Positive | None = 0.2
    value_weight: Annotated[float, Field(ge=0.0)] = 0.5
    entropy_weight: Annotated[float, Field(ge=0.0)] = 0.0
    whiten_advantages: bool = True
    critic: Literal["shared", "adapter"] = "shared"
    critic_warmup_iterations: Annotated[int, Field(ge=0)] = 0
    missing_eos_penalty: Annotated[float, Field(ge=0.0)] = 1.0


class GuardSpec(Strict):
    """Guard rails of an RL run: what to do when the policy goes blind or a reward term is constant."""

    vision_gap_min_nats: float | None = 0.0
    vision_gap_action: Literal["off", "warn", "stop"] = "warn"
    calibration_samples: Count = 128
    failed_fraction_max: Fraction = 0.01


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
    trainer: dict[str, Any] = {}
    run: RunSpec


class SystemSpec(Strict):
    """A checkpoint to evaluate, under the name of its row in the tables."""

    name: str
    model: ModelSpec


class OnPolicyPairsSpec(Strict):
    """Held-out pairs from a system's own samples on the first ``images`` test pictures, without flipped labels."""

    system: str
    images: Count = 400
    completions_per_prompt: Annotated[int, Field(ge=2)] = 4
    temperature: Positive = 1.0


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


class PipelineStage(Strict):
    """One link of a chain: the recipe file (relative to the pipeline's) and values to override."""

    name: str
    recipe: str
    overrides: dict[str, Any] = {}


class PipelineRecipe(Strict):
    """A chain of stages by directory: ``{out}`` in overrides is the chain's output directory."""

    stage: Literal["pipeline"]
    prepare: Literal["scenes", "none"] = "none"
    rows: dict[Literal["train", "val", "test"], Count] = {}
    stages: list[PipelineStage] = Field(min_length=1)
    run: RunSpec


Recipe = Annotated[
    PretrainRecipe
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
