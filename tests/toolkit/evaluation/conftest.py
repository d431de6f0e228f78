"""A tiny model, a small sample of scenes and an evaluated folder, made once a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.config.schema import (
    CaptionSource,
    DecodingSpec,
    EvalRecipe,
    ModelSpec,
    RunSpec,
    SystemSpec,
    VqaSource,
)
from toolkit.config.schema import TestDataSpec as DataOfTest
from toolkit.config.schema import TinyArchitecture as Architecture
from toolkit.evaluation.stage import evaluate_systems
from toolkit.records import PreferenceRow, PromptRow, image_prompt
from toolkit.rewards.base import RewardBatch, RewardOutput
from toolkit.runs.directory import RunDirectory

IMAGES = 12


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sample data: train, val and test with a dozen pictures each."""
    from toolkit.data.scenes.writing import write_sample

    folder = tmp_path_factory.mktemp("scenes")
    write_sample(folder, seed=3, rows=IMAGES)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny LLaVA."""
    return build(tmp_path_factory.mktemp("model"), seed=0)


@pytest.fixture(scope="session")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another random tiny LLaVA."""
    return build(tmp_path_factory.mktemp("other"), seed=1)


def build(folder: Path, *, seed: int) -> Path:
    import torch

    from toolkit.models.families.llava import build_tiny_llava

    torch.set_num_threads(1)
    sizes = {
        name: size
        for part in ("vision", "text")
        for name, size in ((f"{part}_hidden", 64), (f"{part}_layers", 1))
    }
    architecture = Architecture(**sizes, vision_heads=2, text_heads=2, vision_mlp=64, text_mlp=64)
    texts = ["a red circle is left of a blue square", "Describe the image.", "how many rings?"] * 20
    model, processor = build_tiny_llava(architecture, texts=texts, seed=seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def recipe_for(data: Path, out: Path, systems: dict[str, Path], **values: Any) -> EvalRecipe:
    """An eval recipe over the test split of the sample."""
    sources = [
        CaptionSource(kind="caption", captions="test/captions.json", images="test/images"),
        VqaSource(
            kind="vqa",
            questions="test/questions.json",
            annotations="test/annotations.json",
            images="test/images",
        ),
    ]
    return EvalRecipe(
        stage="eval",
        systems=[SystemSpec(name=name, model=ModelSpec(id=str(path))) for name, path in systems.items()],
        data=DataOfTest(root=str(data), test=sources),
        generation=DecodingSpec(max_new_tokens=6, batch_size=8),
        resamples=40,
        run=RunSpec(output_dir=str(out)),
        **values,
    )


def caption_row(number: int, *references: str, image: bytes = b"") -> PromptRow:
    """A caption row whose picture is never opened."""
    return PromptRow(
        sample_id=f"caption/{number}",
        task="caption",
        prompt=image_prompt("Describe the image."),
        images=(image or f"image {number}".encode(),),
        image_id=number,
        references=references,
    )


def question_row(number: int, image_id: int, *answers: str) -> PromptRow:
    """A question whose picture is never opened."""
    return PromptRow(
        sample_id=f"vqa/{number}",
        task="vqa",
        prompt=image_prompt("what colour is it?"),
        images=(f"image {image_id}".encode(),),
        image_id=image_id,
        answers=answers,
        meta={"question_id": number, "question_type": "what colour", "answer_type": "other"},
    )


class LengthReward:
    """Characters of the text: a reward that can be checked by eye."""

    name = "length"
    scale = "characters"
    may_be_constant = False
    background = False

    def __init__(self, *, fail: bool = False) -> None:
        self.fail = fail

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        scores = np.array([float(len(text)) for text in batch.completions])
        return RewardOutput(scores=np.full_like(scores, np.nan) if self.fail else scores)


def evaluate(recipe: Any, **values: Any) -> dict[str, Any]:
    run = RunDirectory(recipe.run.output_dir)
    run.prepare(recipe, resume=True)
    try:
        return evaluate_systems(recipe, run, **values)
    finally:
        run.release()


@pytest.fixture(scope="session")
def evaluated(
    scenes: Path, checkpoint: Path, other_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A complete evaluation of two random models, with a reward and the scenes' criterion."""
    out = tmp_path_factory.mktemp("eval") / "eval"
    recipe = recipe_for(
        scenes,
        out,
        {"base": checkpoint, "sft": other_checkpoint},
        train_references="train/captions.json",
        blind_from="sft",
        scenes="test/scenes.jsonl",
        preference_pairs=["test/pairs.jsonl"],
        differences=[("sft", "base"), ("human", "blind")],
    )

    def card(pairs: list[PreferenceRow]) -> dict[str, Any]:
        return {"accuracy": 0.5, "text_only_accuracy": None, "blanked_accuracy": 0.5, "n": len(pairs)}

    evaluate(recipe, reward=LengthReward(), reward_model_card=card)
    return out
