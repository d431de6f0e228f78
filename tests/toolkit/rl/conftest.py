"""Tiny random models of three families with an adapter, pictures and rows: all that a PPO run needs, in a second."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from toolkit.config.blocks import Dtype
from toolkit.config.schema import LoraSpec, ModelSpec, QuantizationSpec, RlRecipe, TinyArchitecture
from toolkit.models.families.idefics3 import build_tiny_idefics3
from toolkit.models.families.llava import build_tiny_llava
from toolkit.models.families.qwen2_5_vl import build_tiny_qwen2_5_vl
from toolkit.models.loading import LoadedVlm, load_vlm
from toolkit.models.roles import role_parameters
from toolkit.records import PromptRow, image_prompt
from toolkit.rewards.building import build_reward
from toolkit.rewards.composite import CompositeReward
from toolkit.rl.trainer import PpoTrainer
from toolkit.runs.directory import RunDirectory

CAPTIONS = (
    "a red circle above a blue square",
    "two green crosses beside each other",
    "a small yellow triangle",
    "a large blue circle left of a red cross",
)
TEXTS = [*CAPTIONS, "Describe the image.", "What colour is it?", "red", "blue"] * 20
# One tensor an image; tiles; concatenated patches.
FAMILIES = ("llava", "idefics3", "qwen2_5_vl")
SIZES = ((24, 24), (64, 32), (40, 90), (56, 56))
ARCHITECTURE = TinyArchitecture(
    image_size=24,
    vision_hidden=64,
    vision_layers=1,
    vision_heads=2,
    vision_mlp=64,
    text_hidden=64,
    text_layers=2,
    text_heads=2,
    text_mlp=128,
    vocabulary=300,
)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved random base model whose adapter-free policy writes short texts."""
    torch.set_num_threads(1)
    return saved(build_tiny_llava(ARCHITECTURE, texts=TEXTS, seed=0), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def bases(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Such a base of every family."""
    larger = ARCHITECTURE.model_copy(update={"image_size": 48})
    built = {
        "idefics3": build_tiny_idefics3(larger, texts=TEXTS, seed=0, tiles=True),
        "qwen2_5_vl": build_tiny_qwen2_5_vl(larger, texts=TEXTS, seed=0),
    }
    return {
        "llava": base,
        **{name: saved(both, tmp_path_factory.mktemp(name)) for name, both in built.items()},
    }


def saved(both: tuple[Any, Any], path: Path) -> Path:
    """``path``, with the model and its processor in it."""
    model, processor = both
    sharpen(model)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def sharpen(model: torch.nn.Module) -> None:
    """Larger output weights: a fresh model is uniform over its vocabulary and no adapter could move it."""
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(10.0)  # type: ignore[operator]


def load_policy(
    base: Path,
    *,
    bits: int | None = None,
    dtype: Dtype = "float32",
    storage_dtype: str = "uint8",
    checkpointing: bool = False,
    seed: int = 1,
) -> LoadedVlm:
    """The base with a new adapter that differs from zero; 4-bit weights compute in ``dtype``."""
    four_bit = {"compute_dtype": dtype, "storage_dtype": storage_dtype}
    spec = ModelSpec(
        id=str(base),
        dtype=dtype,
        lora=LoraSpec(rank=4, alpha=8),
        quantization=QuantizationSpec.model_validate(four_bit) if bits else None,
        gradient_checkpointing=checkpointing,
    )
    vlm = load_vlm(spec, trainable=True)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in role_parameters(vlm.model, "default"):
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return vlm


def picture(index: int, size: tuple[int, int] = SIZES[0]) -> bytes:
    """A small noisy PNG of its own colour."""
    pixels = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def make_rows(
    count: int, *, vqa: bool = False, start: int = 0, sizes: Sequence[tuple[int, int]] = SIZES[:1]
) -> list[PromptRow]:
    """Caption rows with pictures of the ``sizes`` in turn; with ``vqa`` every second row is a question."""
    rows = []
    for index in range(start, start + count):
        question = vqa and index % 2 == 1
        rows.append(
            PromptRow(
                sample_id=f"row{index}",
                task="vqa" if question else "caption",
                prompt=image_prompt("What colour is it?" if question else "Describe the image."),
                images=(picture(index, sizes[index % len(sizes)]),),
                image_id=index,
                references=() if question else CAPTIONS[index % 4 : index % 4 + 2],
                answers=("red",) * 10 if question else (),
            )
        )
    return rows


def make_recipe(output_dir: Path, **changes: object) -> RlRecipe:
    """A recipe of a few small iterations; ``changes`` replace whole blocks or single keys (``ppo__epochs=1``)."""
    values: dict[str, object] = {
        "stage": "rl",
        "model": {"id": "base"},
        "data": {"root": ".", "train": [{"kind": "rows", "file": "rows.jsonl"}]},
        "rewards": [{"term": "length", "options": {"max_tokens": 3, "per_tokens": 4.0}}],
        "rollout": {"prompts_per_iteration": 8, "max_new_tokens": 8},
        "ppo": {"iterations": 3, "missing_eos_penalty": 0.0},
        "guards": {"calibration_samples": 8},
        "run": {"output_dir": str(output_dir), "log_every_steps": 1},
        "optimizer": {"learning_rate": 1e-3},
    }
    for key, value in changes.items():
        block, _, name = key.partition("__")
        if name:
            values[block] = {**values.get(block, {}), name: value}  # type: ignore[dict-item]
        else:
            values[block] = value
    return RlRecipe.model_validate(values)


def make_reward(recipe: RlRecipe) -> CompositeReward:
    """The recipe's reward, with document frequencies of the captions above."""
    return build_reward(recipe.rewards, references={str(i): [text] for i, text in enumerate(CAPTIONS)})


@pytest.fixture
def make_trainer(
    base: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., PpoTrainer]]:
    """A trainer on a fresh policy; arguments change the recipe, the named ones the rest.

    LLaVA makes one size of all pictures: unless told, its are of one, and those of the other families of several.
    """

    runs: list[RunDirectory] = []

    def build(
        *,
        name: str = "run",
        family: str = "llava",
        sizes: Sequence[tuple[int, int]] | None = None,
        bits: int | None = None,
        dtype: Dtype = "float32",
        checkpointing: bool = False,
        vqa: bool = False,
        resume: bool = False,
        evaluate: Callable[[LoadedVlm], dict[str, float]] | None = None,
        reward: CompositeReward | None = None,
        **changes: object,
    ) -> PpoTrainer:
        recipe = make_recipe(tmp_path / name, **changes)
        run = RunDirectory(recipe.run.output_dir)
        run.prepare(recipe, resume=resume)
        runs.append(run)
        model = base if family == "llava" else request.getfixturevalue("bases")[family]
        sizes = sizes or (SIZES[:1] if family == "llava" else SIZES)
        return PpoTrainer(
            load_policy(model, bits=bits, dtype=dtype, checkpointing=checkpointing),
            reward or make_reward(recipe),
            make_rows(20, vqa=vqa, sizes=sizes),
            make_rows(8, vqa=vqa, start=100, sizes=sizes),
            recipe,
            run,
            evaluate,
        )

    yield build
    for run in runs:
        run.release()


def stop_in(trainer: PpoTrainer, iteration: int, *, after: int | None = None) -> None:
    """SIGTERM reaches the run in ``iteration`` (from 1): after so many minibatches, or at its end where None."""
    if after is None:
        finish = trainer._finish

        def finished(*arguments: Any) -> str:
            if trainer.iteration == iteration - 1:
                trainer.run.stop.request(signal.SIGTERM)
            return finish(*arguments)

        trainer._finish = finished  # type: ignore[method-assign]
        return
    update, step = trainer.updater.update, trainer.updater._step

    def updated(*arguments: Any, **named: Any) -> Any:
        if trainer.iteration == iteration - 1 and after == 0:
            trainer.run.stop.request(signal.SIGTERM)
        return update(*arguments, **named)

    def stepped(experience: Any, rows: Any, statistics: Any, warming_up: bool) -> float:
        nats = step(experience, rows, statistics, warming_up)
        if trainer.iteration == iteration - 1 and statistics.updates == after:
            trainer.run.stop.request(signal.SIGTERM)
        return nats

    trainer.updater.update = updated  # type: ignore[method-assign]
    trainer.updater._step = stepped  # type: ignore[method-assign]


@pytest.fixture
def letters(tmp_path: Path) -> list[dict[str, object]]:
    """Reward terms that pay for the letter e: even a random model can learn that."""
    file = tmp_path / "letters.py"
    file.write_text(
        "def letters(completions, **columns):\n    return [c[0]['content'].count('e') for c in completions]\n"
    )
    return [{"term": f"{file}:letters"}]
