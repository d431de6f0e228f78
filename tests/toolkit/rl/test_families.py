"""The loop on families that carry pictures in other ways: tiles (Idefics3) and concatenated patches (Qwen2.5-VL)."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from toolkit.models.families.idefics3 import build_tiny_idefics3
from toolkit.models.families.qwen2_5_vl import build_tiny_qwen2_5_vl
from toolkit.records import PromptRow
from toolkit.rl.trainer import PpoTrainer
from toolkit.runs.directory import RunDirectory

from .conftest import ARCHITECTURE, CAPTIONS, load_policy, make_recipe, make_reward, make_rows, sharpen

SIZES = ((24, 24), (64, 32), (40, 90), (56, 56))


def rows_of_mixed_sizes(count: int) -> list[PromptRow]:
    """Caption rows whose pictures differ in size."""
    rows = []
    for index, row in enumerate(make_rows(count)):
        pixels = np.random.default_rng(index).integers(0, 256, (*SIZES[index % 4], 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        rows.append(replace(row, images=(buffer.getvalue(),)))
    return rows


@pytest.fixture(params=["idefics3", "qwen2_5_vl"])
def trainer(request: pytest.FixtureRequest, tmp_path: Path) -> PpoTrainer:
    """A trainer on a tiny model of the family."""
    texts = [*CAPTIONS, "Describe the image."] * 20
    architecture = ARCHITECTURE.model_copy(update={"image_size": 48})
    if request.param == "idefics3":
        model, processor = build_tiny_idefics3(architecture, texts=texts, seed=0, tiles=True)
    else:
        model, processor = build_tiny_qwen2_5_vl(architecture, texts=texts, seed=0)
    sharpen(model)
    model.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    recipe = make_recipe(tmp_path / "run", ppo__iterations=2, ppo__critic="adapter")
    run = RunDirectory(tmp_path / "run")
    run.prepare(recipe)
    rows = rows_of_mixed_sizes(12)
    return PpoTrainer(load_policy(tmp_path / "base"), make_reward(recipe), rows, rows[:8], recipe, run)


def test_mixed_sizes_survive_features_shuffling_and_minibatches(trainer: PpoTrainer) -> None:
    rollout = trainer.worker.collect(trainer.rows[:8], seed=1)
    assert all(prompt.features is not None for prompt in rollout.prompts)
    pixels = [replace(prompt, features=None) for prompt in rollout.prompts]
    same = trainer.worker.score(rollout.rows, pixels, rollout.completions)
    assert torch.allclose(same.logprobs, rollout.logprobs, atol=1e-5)
    order = [5, 2, 7, 0]
    some = trainer.worker.score(
        [rollout.rows[i] for i in order],
        [rollout.prompts[i] for i in order],
        [rollout.completions[i] for i in order],
    )
    width = some.logprobs.shape[1]
    assert torch.allclose(some.logprobs, rollout.logprobs[order, :width], atol=1e-5)
    trainer.train()
    lines = trainer.run.metrics.read()
    assert len(lines) == 2
    assert lines[0]["kl/k1_nats"] == pytest.approx(0.0, abs=1e-5)
    assert lines[1]["kl/k3_nats"] > 0
    trainer.run.release()
