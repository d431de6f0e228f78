"""The two sides of ``rl_race.py``: our PPO loop and TRL's RLOO and GRPO trainers, from one SFT adapter on one task.

The task is to caption with CIDEr-D as the reward. Both sides sample eight completions to a prompt, train the same
adapter on the same 4-bit base in float32, and stand still while the clock is stopped for an evaluation on the same
validation prompts, after equal numbers of completions.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toolkit.config.catalogue import find_recipe
from toolkit.config.loading import load_recipe
from toolkit.config.schema import DecodingSpec, RlRecipe
from toolkit.data.sources import load_prompt_rows
from toolkit.errors import RecipeError, UsageError
from toolkit.evaluation.predict import predict_rows
from toolkit.evaluation.scoring import score_caption_results
from toolkit.evaluation.split import prompt_text
from toolkit.records import PromptRow
from toolkit.rewards.building import build_reward
from toolkit.rewards.trl_adapter import as_trl_reward
from toolkit.runs.directory import RunDirectory

if TYPE_CHECKING:
    from toolkit.models.loading import LoadedVlm

SIDES = ("ours", "rloo", "grpo", "rloo-official", "grpo-official", "rloo-example", "grpo-example")
GROUP = 8  # samples a prompt, TRL's default


@dataclass(frozen=True)
class Sizes:
    """Completions of a run, of one iteration of each side, and between evaluations; validation pictures.

    ``start`` is the SFT adapter of both sides, ``recipe`` our side's.
    """

    start: Path
    recipe: str
    limit: int
    ours: int
    theirs: int
    eval_every: int
    val: int

    def __post_init__(self) -> None:
        """Raises UsageError where evaluations would not fall on iterations of both sides."""
        if self.eval_every % self.ours or self.eval_every % self.theirs or self.limit % self.eval_every:
            raise UsageError(
                f"completions between evaluations ({self.eval_every}) must be a multiple of those of an iteration "
                f"({self.ours}, {self.theirs}), and divide those of a run ({self.limit})"
            )


@dataclass(frozen=True)
class Setting:
    """What is tuned: the learning rate, and the weight of the KL penalty in each side's own terms."""

    learning_rate: float
    kl: float


class Reached(Exception):
    """The target is reached: nothing after it counts."""


class Point(NamedTuple):
    """An evaluation: training seconds until then (wall, and of the processor), completions, greedy CIDEr."""

    seconds: float
    cpu_seconds: float
    completions: int
    cider: float


@dataclass
class Clock:
    """Seconds of training without evaluations, and CIDEr on the validation prompts along the way."""

    rows: Sequence[PromptRow]
    target: float | None = None
    points: list[Point] = field(default_factory=list)
    _began: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        """Training begins."""
        self._began = _now()

    def measure(self, vlm: LoadedVlm, completions: int) -> float:
        """Greedy CIDEr with the clock stopped.

        Raises:
            Reached: it is the target or more.
        """
        now = _now()
        training = vlm.model.training
        vlm.model.eval()
        predictions = predict_rows(vlm, self.rows, decoding=DecodingSpec(batch_size=128), label="validation")
        vlm.model.train(training)
        references = {row.image_id: row.references for row in self.rows}
        texts = {row.image_id: found.text for row, found in zip(self.rows, predictions, strict=True)}
        cider = float(score_caption_results(references, texts).columns["cider"].mean())
        self.points.append(Point(now[0] - self._began[0], now[1] - self._began[1], completions, cider))
        after = _now()
        self._began = self._began[0] + after[0] - now[0], self._began[1] + after[1] - now[1]
        if self.target is not None and cider >= self.target:
            raise Reached
        return cider


def _now() -> tuple[float, float]:
    """Wall seconds, and processor seconds of this process and of those it waited for (a tokenizer in Java)."""
    return time.perf_counter(), sum(os.times()[:4])


def race(
    side: str, chain: Path, setting: Setting, sizes: Sizes, *, seed: int, target: float | None = None
) -> list[Point]:
    """Train one side and return the clock's points; ends at the target, where there is one."""
    from toolkit.models.loading import load_vlm

    root = chain / "data"
    val = _rows(root, "val", sizes.val)
    clock = Clock(val, target)
    with tempfile.TemporaryDirectory() as folder:
        recipe = _recipe(chain, Path(folder) / "run", setting, sizes, seed)
        train = _rows(root, "train", None)
        policy = load_vlm(recipe.model, trainable=True)
        try:
            if side == "ours":
                _ours(policy, recipe, train, clock, sizes)
            else:
                _trl(side, policy, recipe, train, clock, setting, sizes)
        except Reached:
            pass
    return clock.points


def _rows(root: Path, part: str, limit: int | None) -> list[PromptRow]:
    source = load_recipe(find_recipe("scenes/ppo")).data.train[0]
    changes = {"captions": f"{part}/captions.json", "images": f"{part}/images", "limit": limit}
    return load_prompt_rows([source.model_copy(update=changes)], root)


def _recipe(chain: Path, out: Path, setting: Setting, sizes: Sizes, seed: int) -> RlRecipe:
    path = find_recipe(sizes.recipe)
    plain = load_recipe(path)
    if not isinstance(plain, RlRecipe):
        raise RecipeError(str(path), f"stage: expected 'rl', found '{plain.stage}'")
    if sizes.ours % GROUP or sizes.theirs % GROUP:
        raise UsageError(
            f"--ours {sizes.ours} and --theirs {sizes.theirs} must be multiples of {GROUP} samples a prompt"
        )
    values: dict[str, Any] = {
        "model.id": str(sizes.start),
        "data.root": str(chain / "data"),
        "rewards": [{"term": "cider", "normalise": "frozen"}],
        "rollout.samples_per_prompt": GROUP,
        "rollout.prompts_per_iteration": sizes.ours // GROUP,
        "ppo.iterations": sizes.limit // sizes.ours,
        "kl.coefficient": setting.kl,
        "optimizer.learning_rate": setting.learning_rate,
        "optimizer.schedule": "constant",  # as theirs: a run ends at the target, wherever that is
        "run.output_dir": str(out),
        "run.seed": seed,
        "run.eval_every_steps": sizes.eval_every // sizes.ours,
        "run.save_every_steps": None,
    }
    recipe = load_recipe(path, values)
    return recipe if isinstance(recipe, RlRecipe) else plain


def _ours(
    policy: LoadedVlm, recipe: RlRecipe, train: Sequence[PromptRow], clock: Clock, sizes: Sizes
) -> None:
    """The recipe ``sizes.recipe``; the clock runs from before the reward's calibration."""
    from toolkit.rl.trainer import PpoTrainer

    reward = build_reward(recipe.rewards, references={row.image_id: row.references for row in train})
    run = RunDirectory(recipe.run.output_dir)
    run.prepare(recipe)
    place: list[PpoTrainer] = []

    def evaluate(vlm: LoadedVlm) -> dict[str, float]:
        done = place[0].iteration * sizes.ours
        return {"cider": clock.measure(vlm, done)}

    place.append(PpoTrainer(policy, reward, train, clock.rows, recipe, run, evaluate))
    clock.start()
    try:
        place[0].train()
    finally:
        run.release()


def _trl(
    side: str,
    policy: LoadedVlm,
    recipe: RlRecipe,
    train: Sequence[PromptRow],
    clock: Clock,
    setting: Setting,
    sizes: Sizes,
) -> None:
    """TRL's trainer with its own defaults but for the sizes, the setting and what a CPU asks for."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    from toolkit.training.precision import keeping_trainable_dtype

    name, _, scorer = side.partition("-")
    config, trainer_class = {"rloo": (RLOOConfig, RLOOTrainer), "grpo": (GRPOConfig, GRPOTrainer)}[name]
    arguments = config(
        output_dir=recipe.run.output_dir, max_steps=sizes.limit // sizes.theirs, seed=recipe.run.seed,
        per_device_train_batch_size=sizes.theirs, num_generations=GROUP,
        max_completion_length=recipe.rollout.max_new_tokens, learning_rate=setting.learning_rate, beta=setting.kl,
        lr_scheduler_type="constant", logging_steps=100_000, save_strategy="no", report_to="none",
        use_cpu=policy.device.type == "cpu", bf16=False, gradient_checkpointing=False, disable_tqdm=True,
        dataloader_pin_memory=False, remove_unused_columns=False,
    )  # fmt: skip

    class Watch(TrainerCallback):
        """Evaluates as the other side does."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if (done := state.global_step * sizes.theirs) % sizes.eval_every == 0:
                clock.measure(policy, done)

    reward = _official(train, scorer) if scorer else _adapted(recipe, policy, train)
    with keeping_trainable_dtype(policy.model):
        trainer = trainer_class(
            model=policy.model,
            reward_funcs=[reward],
            args=arguments,
            train_dataset=Dataset.from_list([_example(row) for row in train]),
            processing_class=policy.processor,
            callbacks=[Watch()],
        )
    for key, parameter in policy.model.named_parameters():  # TRL rounded its copy to bfloat16
        if ".ref." in key:
            parameter.data = policy.model.get_parameter(key.replace(".ref.", ".default.")).data.clone()
    clock.start()
    clock.measure(policy, 0)
    trainer.train()


def _example(row: PromptRow) -> dict[str, Any]:
    from toolkit.data.images import load_image

    return {
        "prompt": [{"role": "user", "content": prompt_text(row.prompt)}],
        "images": [load_image(image) for image in row.images],
        "sample_id": row.sample_id,
        "task": row.task,
        "image_id": row.image_id,
        "references": list(row.references),
    }


def _adapted(recipe: RlRecipe, policy: LoadedVlm, train: Sequence[PromptRow]) -> Callable[..., Any]:
    """Our CIDEr-D as TRL's reward function."""
    terms = [recipe.rewards[0].model_copy(update={"normalise": "none"})]
    reward = build_reward(terms, references={row.image_id: row.references for row in train})
    return as_trl_reward(reward, end_token_id=policy.tokenizer.eos_token_id)


def _official(train: Sequence[PromptRow], way: str) -> Callable[..., list[float]]:
    """pycocoevalcap with its tokenizer.

    ``official``: references tokenized and counted beforehand. ``example``: as its own example calls it, references
    tokenized again in every call and document frequencies those of the batch.
    """
    from caption_corpus import Corpus
    from official_captions import Official

    official = Official(Corpus("scenes", {row.image_id: list(row.references) for row in train}, []))
    scored = {"official": official.reward, "example": lambda *given: official.example(*given)[1]}[way]

    def cider(completions: Sequence[Any], image_id: Sequence[Any], **columns: Any) -> list[float]:
        texts = [completion[-1]["content"] for completion in completions]
        return [float(score) for score in scored(list(image_id), texts)]

    return cider
