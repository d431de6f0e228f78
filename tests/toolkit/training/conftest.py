"""A tiny base, rows about coloured pictures, and short runs that can be killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import TrainerCallback

from toolkit.config.schema import LoraSpec, ModelSpec, QuantizationSpec, RunSpec, TinyArchitecture
from toolkit.models.families.llava import build_tiny_llava
from toolkit.models.families.qwen2_5_vl import build_tiny_qwen2_5_vl
from toolkit.models.loading import LoadedVlm, load_vlm
from toolkit.records import PreferenceRow, SftRow, image_prompt

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 230)}
ARCHITECTURE = TinyArchitecture(
    image_size=32,
    vision_hidden=64,
    vision_layers=1,
    vision_heads=2,
    vision_mlp=64,
    text_hidden=64,
    text_layers=2,
    text_heads=2,
    text_mlp=128,
)
TEXTS = ["a red picture", "a green or blue one", "Describe the image."] * 20
MODELS = {
    "full": {},
    "lora": {"lora": LoraSpec(rank=4, alpha=8)},
    "nf4": {"lora": LoraSpec(rank=4, alpha=8), "quantization": QuantizationSpec()},
}


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it runs."""


class KillAt(TrainerCallback):
    """Kills the run at the start of the step after ``step``."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """A saved random LLaVA."""
    folder = tmp_path_factory.mktemp("base")
    model, processor = build_tiny_llava(ARCHITECTURE, texts=TEXTS, seed=0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def qwen_base(tmp_path_factory) -> Path:
    """A saved random Qwen2.5-VL."""
    folder = tmp_path_factory.mktemp("qwen")
    model, processor = build_tiny_qwen2_5_vl(ARCHITECTURE, texts=TEXTS, seed=0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pictures")
    for index, (name, colour) in enumerate(COLOURS.items()):
        Image.new("RGB", (32 + 28 * index, 32), colour).save(root / f"{name}.png")
    return {name: root / f"{name}.png" for name in COLOURS}


@pytest.fixture(scope="session")
def sft_rows(pictures) -> list[SftRow]:
    return [
        SftRow(
            sample_id=f"{name}-{index}",
            task="caption",
            prompt=image_prompt("Describe the image."),
            completion=f"a {name} picture" + " really" * (index % 3),
            images=(pictures[name],),
        )
        for index in range(9)
        for name in COLOURS
    ]


@pytest.fixture(scope="session")
def pairs(pictures) -> list[PreferenceRow]:
    return [
        PreferenceRow(
            sample_id=f"{good}-{bad}-{index}",
            task="caption",
            prompt=image_prompt("Describe the image."),
            chosen=f"a {good} picture",
            rejected=f"a {bad} picture" + " really" * index,
            images=(pictures[good],),
        )
        for index in range(3)
        for good in COLOURS
        for bad in COLOURS
        if good != bad
    ]


@pytest.fixture(scope="session")
def new_vlm(base) -> Callable[..., LoadedVlm]:
    """A model to train: ``full``, ``lora`` or ``nf4`` (LoRA on a 4-bit base); the same weights at every call."""

    def load(kind: str, *, folder: Path = base, **values) -> LoadedVlm:
        torch.manual_seed(0)
        return load_vlm(ModelSpec(id=str(folder), **{**MODELS[kind], **values}), trainable=True)

    return load


@pytest.fixture
def run_spec(tmp_path) -> Callable[..., RunSpec]:
    def make(name: str, **values) -> RunSpec:
        steps = {"log_every_steps": 2, "save_every_steps": 3, "eval_every_steps": 4}
        return RunSpec(output_dir=str(tmp_path / name), **{**steps, **values})

    return make


@pytest.fixture
def kill_at():
    return KillAt


@pytest.fixture
def killed():
    return Killed
