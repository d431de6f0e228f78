"""Tiny models of two layouts (one tensor an image; concatenated patches) and pairs about coloured pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from reward_models.checkpoint import describe, save_reward_model
from reward_models.model import VlmRewardModel
from toolkit.config.schema import (
    DataSpec,
    LoraSpec,
    ModelSpec,
    RewardRecipe,
    RowsSource,
    RunSpec,
    TinyArchitecture,
)
from toolkit.models.families.idefics3 import build_tiny_idefics3
from toolkit.models.families.llava import build_tiny_llava
from toolkit.models.families.qwen2_5_vl import build_tiny_qwen2_5_vl
from toolkit.models.loading import load_vlm
from toolkit.models.roles import role_parameters
from toolkit.records import PreferenceRow, image_prompt

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 230), "yellow": (240, 230, 40)}
TEXTS = ["a red picture of nothing", "a green and a blue one", "Describe the image.", "yellow is the colour"]
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
FAMILIES = ("llava", "idefics3", "qwen2_5_vl")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> dict[str, Path]:
    """A saved random model of each family."""
    root = tmp_path_factory.mktemp("bases")
    builders = {
        "llava": build_tiny_llava,
        "qwen2_5_vl": build_tiny_qwen2_5_vl,
        "idefics3": build_tiny_idefics3,
    }
    for name, build in builders.items():
        model, processor = build(ARCHITECTURE, texts=TEXTS * 20, seed=0)
        model.save_pretrained(root / name)
        processor.save_pretrained(root / name)
    return {name: root / name for name in builders}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> dict[str, Path]:
    """One picture of each colour, of different shapes."""
    root = tmp_path_factory.mktemp("pictures")
    for index, (name, colour) in enumerate(COLOURS.items()):
        Image.new("RGB", (32 + 28 * (index % 2), 32 + 14 * (index // 2)), colour).save(root / f"{name}.png")
    return {name: root / f"{name}.png" for name in COLOURS}


@pytest.fixture(scope="session")
def pairs(pictures) -> list[PreferenceRow]:
    """Pairs that only the picture decides: its colour against every other colour, equally often each."""
    return [
        PreferenceRow(
            sample_id=f"{good}-{bad}",
            task="caption",
            prompt=image_prompt("Describe the image."),
            chosen=f"a {good} picture",
            rejected=f"a {bad} picture",
            images=(pictures[good],),
            source="easy" if bad == "red" else "hard",
        )
        for good in COLOURS
        for bad in COLOURS
        if good != bad
    ]


def randomised(vlm, *, seed: int = 0) -> None:
    """Give the adapter weights that do something: LoRA's B starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in role_parameters(vlm.model, "default"):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def spec_of(base: Path, **values) -> ModelSpec:
    return ModelSpec(id=str(base), lora=LoraSpec(rank=4, alpha=8), **values)


def random_reward(base: Path, *, seed: int = 0, **values) -> tuple[VlmRewardModel, ModelSpec]:
    """A reward model whose adapter and head are random, so that its scores differ."""
    spec = spec_of(base, **values)
    vlm = load_vlm(spec, trainable=True)
    randomised(vlm, seed=seed)
    model = VlmRewardModel.new(vlm)
    torch.manual_seed(seed)
    torch.nn.init.normal_(model.head.linear.weight, std=0.3)
    return model.eval(), spec


@pytest.fixture(scope="session")
def new_reward():
    """``random_reward`` as a fixture."""
    return random_reward


@pytest.fixture(scope="session")
def new_recipe():
    """``recipe_for`` as a fixture."""
    return recipe_for


@pytest.fixture(scope="session", params=FAMILIES)
def reward_model(request, bases) -> VlmRewardModel:
    return random_reward(bases[request.param])[0]


@pytest.fixture(scope="session")
def saved_reward(bases, tmp_path_factory) -> Path:
    """A saved LLaVA reward model; tests must leave it as it is."""
    model, spec = random_reward(bases["llava"])
    folder = tmp_path_factory.mktemp("reward")
    save_reward_model(model, folder, describe(model.vlm, spec, score_mean=0.5, score_std=2.0))
    return folder


@pytest.fixture(scope="session")
def pair_folder(pairs, tmp_path_factory) -> Path:
    """The pairs as a data folder: ``train.jsonl`` and ``val.jsonl`` over pictures of their own."""
    root = tmp_path_factory.mktemp("pairs")
    (root / "images").mkdir()
    for part, shade in (("train", 0), ("val", 9)):
        lines = []
        for index, row in enumerate(pairs * 2):
            name = f"images/{part}-{index}.png"
            colour = tuple(
                max(0, value - shade - index // len(pairs)) for value in COLOURS[row.chosen.split()[1]]
            )
            Image.new("RGB", (32, 32 + index), colour).save(root / name)
            line = {"sample_id": f"{part}-{index}", "task": row.task, "prompt": "Describe the image."}
            lines.append(
                {
                    **line,
                    "chosen": row.chosen,
                    "rejected": row.rejected,
                    "images": [name],
                    "source": row.source,
                }
            )
        (root / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def recipe_for(base: Path, data: Path, output: Path, *, steps: int = 6, **values) -> RewardRecipe:
    """A short reward run on the pair folder."""
    run = {"save_every_steps": 2, "log_every_steps": 1, "eval_every_steps": 2, **values.pop("run", {})}
    options = {"max_steps": steps, "per_device_train_batch_size": 8, "learning_rate": 2e-3, "warmup_steps": 0}
    return RewardRecipe(
        stage="reward",
        model=values.pop("model", spec_of(base)),
        data=DataSpec(
            root=str(data),
            train=[RowsSource(kind="rows", file="train.jsonl")],
            val=[RowsSource(kind="rows", file="val.jsonl")],
        ),
        trainer={**options, **values.pop("trainer", {})},
        run=RunSpec(output_dir=str(output), **run),
        **values,
    )
