"""The blocks that recipes of several stages share: model, data, run, optimizer, decoding, reward terms."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
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


AnswerRule = Literal[
    "official",
    "index",
    "lmms",
    "textvqa",
    "vlmevalkit",
    "vizwiz",
    "simple",
    "exact",
    "yes_no",
    "yes_no_exact",
]


class VqaSource(Strict):
    """Images and questions with annotations in the official format, or (without ``annotations``) with their answers.

    A prompt is ``prefix``, question, ``suffix``; ``capitalise`` makes the question's first letter a capital and the
    others small, as lmms-eval does for some tasks. ``rule`` is how ``eval`` scores an answer.
    """

    kind: Literal["vqa"]
    questions: str
    annotations: str | None = None
    images: str = "."
    prefix: str = ""
    suffix: str = ""
    capitalise: bool = False
    rule: AnswerRule = "official"
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
    """The optimizer of our own loops (TRL stages take theirs from ``trainer:``).

    Both learning rates rise linearly over ``warmup_iterations`` and then follow ``schedule`` down to 0 behind the last
    iteration; ``constant`` stays.
    """

    name: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    learning_rate: Positive = 1e-4
    head_learning_rate: Positive = 2e-3
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_iterations: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    max_grad_norm: Positive | None = 1.0


DECODING_STRATEGY = r"^(greedy|beam:[1-9]\d*|sample:([1-9]\d*(\.\d+)?|0?\.\d*[1-9]\d*)(,[1-9]\d*)?)$"


class DecodingSpec(Strict):
    """How ``eval`` decodes: ``greedy``, ``beam:K`` or ``sample:T,n`` (temperature, samples a prompt).

    Of several samples the first is scored, all of them serve diversity; ``seed`` is theirs.
    """

    max_new_tokens: Count = 32
    batch_size: Count = 64
    strategy: Annotated[str, Field(pattern=DECODING_STRATEGY)] = "greedy"
    seed: int = 0


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


# ---- reinforcement learning ----------------------------------------------------------------------------------


class VllmSpec(Strict):
    """A running ``vllm serve`` that samples the completions of an RL run; how to start it: docs/vllm.md.

    The policy's adapter is written to ``adapter_folder`` (in the run directory, unless given), which the server has to
    see under the same path. ``served_model`` is the server's name for the base, where that is another than the
    recipe's. A request may take ``timeout_seconds``; a server that is gone is asked again for ``retry_seconds``.
    ``mismatch_*`` is the guard rail on the mean ``|ours - server's|`` log-probability of a sampled token.
    ``importance_cap`` bounds the weight ``ours / server's`` of a token's policy loss; without it no weight is taken.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^/\s]+[^\s]*$")] = "http://127.0.0.1:8000"
    served_model: str | None = None
    adapter_folder: str | None = None
    max_requests: Count = 64
    timeout_seconds: Positive = 600.0
    retry_seconds: Annotated[float, Field(ge=0.0)] = 60.0
    mismatch_max_nats: Positive = 0.05
    mismatch_action: Literal["off", "warn", "stop"] = "stop"
    importance_cap: Annotated[float, Field(ge=1.0)] | None = 2.0


class RolloutSpec(Strict):
    """Sampling of completions from the behaviour policy. Top-k and top-p are off: they break importance ratios.

    ``temperature`` moves linearly to ``final_temperature`` over the run, where that is given. ``draws: row`` makes the
    random numbers of a completion a function of seed, sample and epoch, so that any number of processes and any
    ``generation_batch_size`` sample the same; ``batch`` draws one stream a process and iteration. ``share_prompts``
    puts the samples of a prompt behind one copy of it, in all that is done with them, where the model allows it.
    ``backend: vllm`` samples on a server of vLLM's (``vllm``), everything else stays here.
    """

    prompts_per_iteration: Count = 64
    samples_per_prompt: Count = 1
    max_new_tokens: Count = 32
    temperature: Positive = 1.0
    final_temperature: Positive | None = None
    draws: Literal["batch", "row"] = "batch"
    generation_batch_size: Count = 64
    share_prompts: bool = True
    backend: Literal["transformers", "vllm"] = "transformers"
    vllm: VllmSpec | None = None


class KlSpec(Strict):
    """KL penalty to the reference: k1 a token in the reward (Ziegler et al. 2019), fixed or adaptive coefficient.

    ``refresh_reference_every_iterations`` makes the policy as it is then the new reference.
    """

    coefficient: Annotated[float, Field(ge=0.0)] = 0.03
    controller: Literal["fixed", "adaptive"] = "fixed"
    target_nats: Positive = 6.0
    horizon: Positive = 10_000.0
    stop_epochs_above_nats: Positive | None = None
    refresh_reference_every_iterations: Count | None = None


class PpoSpec(Strict):
    """Proximal policy optimisation (Schulman et al. 2017) over tokens.

    ``estimator`` makes the advantages: ``gae`` with a critic, or without one from the other samples of a prompt
    (``rloo``, ``grpo``), the greedy completion (``scst``) or a running mean (``running``, its weight on the past
    ``baseline_decay``). Settings of the critic are refused where there is none. ``final`` is the policy of the last
    iteration or of the evaluation with the highest ``val/<best_metric>``, which ``best/`` keeps in any case.
    ``potential_term`` names a reward term whose score of each prefix of the completion is a shaping potential.
    """

    iterations: Count = 40
    epochs: Count = 2
    minibatches: Count = 2
    gradient_accumulation: Count = 1
    estimator: Literal["gae", "rloo", "grpo", "scst", "running"] = "gae"
    baseline_decay: Decay = 0.9
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
    potential_term: str | None = None
    potential_weight: float = 1.0
    final: Literal["last", "best"] = "last"
    best_metric: str = "score"
