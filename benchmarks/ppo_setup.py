"""A tiny random model of a family, pictures, captions and a recipe: what the PPO benchmarks run on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from toolkit.config.schema import LoraSpec, ModelSpec, QuantizationSpec, RlRecipe, TinyArchitecture
from toolkit.models.families.idefics3 import build_tiny_idefics3
from toolkit.models.families.llava import build_tiny_llava
from toolkit.models.families.qwen2_5_vl import build_tiny_qwen2_5_vl
from toolkit.models.loading import LoadedVlm, load_vlm
from toolkit.records import PromptRow, image_prompt
from toolkit.rewards.building import build_reward
from toolkit.rl.trainer import PpoTrainer
from toolkit.runs.directory import RunDirectory

__all__ = ["FAMILIES", "REFERENCES", "load_policy", "make_recipe", "make_rows", "make_trainer", "save_base"]

FAMILIES = {
    "llava": build_tiny_llava,
    "idefics3": build_tiny_idefics3,
    "qwen2_5_vl": build_tiny_qwen2_5_vl,
}
REFERENCES = (
    "a red circle above a blue square",
    "two green crosses beside each other",
    "a small yellow triangle",
    "a large blue circle left of a red cross",
)
# Random models sample from all their vocabulary: the number of different characters is a reward they can move.
REWARD = """\
def variety(completions, **columns):
    return [float(len(set(completion[0]["content"]))) for completion in completions]
"""


def save_base(folder: Path, family: str = "llava", architecture: TinyArchitecture | None = None) -> Path:
    """A random base of about a million parameters (the sizes of the one that comes along) in ``folder``."""
    texts = [*REFERENCES, "Describe the image."] * 20
    model, processor = FAMILIES[family](architecture or TinyArchitecture(), texts=texts, seed=0)
    with torch.no_grad():  # a fresh model is uniform over its vocabulary and no adapter could move it
        model.get_output_embeddings().weight.mul_(10.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def load_policy(base: Path, *, bits: int | None, rank: int) -> LoadedVlm:
    """The base with a new adapter that changes nothing yet."""
    torch.manual_seed(0)
    lora = LoraSpec(rank=rank, alpha=2 * rank)
    quantization = QuantizationSpec() if bits else None
    return load_vlm(ModelSpec(id=str(base), lora=lora, quantization=quantization), trainable=True)


def make_rows(count: int, *, size: int) -> list[PromptRow]:
    """Caption rows, each with a noisy picture of its own."""
    rows = []
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (size, size, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        references = REFERENCES[index % 4 : index % 4 + 2]
        prompt = image_prompt("Describe the image.")
        rows.append(
            PromptRow(
                sample_id=str(index), task="caption", prompt=prompt, images=(buffer.getvalue(),), image_id=index,
                references=references,
            )
        )  # fmt: skip
    return rows


def make_recipe(folder: Path, **blocks: dict[str, Any]) -> RlRecipe:
    """PPO as in the scenes recipe; ``blocks`` change single values of its blocks."""
    (folder / "reward.py").write_text(REWARD)
    values: dict[str, Any] = {
        "stage": "rl",
        "model": {"id": "base"},
        "data": {"root": ".", "train": [{"kind": "rows", "file": "rows.jsonl"}]},
        "rewards": [{"term": f"{folder / 'reward.py'}:variety", "normalise": "frozen"}],
        "rollout": {"prompts_per_iteration": 64, "max_new_tokens": 12},
        "ppo": {"iterations": 1000},
        "kl": {"coefficient": 0.03},
        "optimizer": {"learning_rate": 5e-4},
        "guards": {"calibration_samples": 64},
        "run": {"output_dir": str(folder / "run")},
    }
    for name, changes in blocks.items():
        values[name] = {**values[name], **changes}
    return RlRecipe.model_validate(values)


def make_trainer(policy: LoadedVlm, rows: list[PromptRow], recipe: RlRecipe) -> PpoTrainer:
    """A trainer with its run directory prepared."""
    run = RunDirectory(recipe.run.output_dir)
    run.prepare(recipe)
    reward = build_reward(recipe.rewards, references={str(row.image_id): row.references for row in rows})
    return PpoTrainer(policy, reward, rows, rows, recipe, run)
