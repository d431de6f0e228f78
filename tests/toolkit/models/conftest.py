"""Tiny models of three families, saved once a session, and pictures of different shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from toolkit.config.schema import LoraSpec, ModelSpec, TinyArchitecture
from toolkit.models.encoding import EncodedPrompt, encode_completion, encode_prompt
from toolkit.models.families.idefics3 import build_tiny_idefics3
from toolkit.models.families.llava import build_tiny_llava
from toolkit.models.families.qwen2_5_vl import build_tiny_qwen2_5_vl
from toolkit.models.loading import LoadedVlm, load_vlm
from toolkit.models.roles import role_parameters
from toolkit.records import image_prompt

TEXTS = [
    "a large red circle is left of a small blue cross",
    "what colour is the circle?",
    "Describe the image.",
]
ARCHITECTURE = TinyArchitecture(
    vision_hidden=64,
    vision_layers=2,
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
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved model of each family."""
    built = {
        "llava": build_tiny_llava(ARCHITECTURE, texts=TEXTS * 20, seed=0),
        "idefics3": build_tiny_idefics3(ARCHITECTURE, texts=TEXTS * 20, seed=0, tiles=True),
        "qwen2_5_vl": build_tiny_qwen2_5_vl(ARCHITECTURE, texts=TEXTS * 20, seed=0),
    }
    root = tmp_path_factory.mktemp("models")
    for name, (model, processor) in built.items():
        model.save_pretrained(root / name)
        processor.save_pretrained(root / name)
    return {name: root / name for name in built}


@pytest.fixture(scope="session", params=FAMILIES)
def vlm(request, directories) -> LoadedVlm:
    """A frozen model of each family; tests must leave it as it is."""
    return load_vlm(ModelSpec(id=str(directories[request.param])), trainable=False)


@pytest.fixture(params=FAMILIES)
def trainable(request, directories) -> LoadedVlm:
    """A model of each family with a new adapter that differs from zero."""
    loaded = load_vlm(
        ModelSpec(id=str(directories[request.param]), lora=LoraSpec(rank=4, alpha=8)), trainable=True
    )
    randomise(loaded, "default", seed=1)
    return loaded


@pytest.fixture
def policy(directories) -> LoadedVlm:
    """The tiny LLaVA with a new adapter that differs from zero."""
    loaded = load_vlm(ModelSpec(id=str(directories["llava"]), lora=LoraSpec(rank=4, alpha=8)), trainable=True)
    randomise(loaded, "default", seed=1)
    return loaded


def randomise(loaded: LoadedVlm, role: str, *, seed: int) -> None:
    """Give an adapter weights that change the model's output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in role_parameters(loaded.model, role):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def picture(seed: int, width: int = 48, height: int = 48) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


SIZES = ((48, 48), (96, 48), (40, 90), (64, 20))


def samples(loaded: LoadedVlm) -> tuple[list[EncodedPrompt], list[torch.Tensor]]:
    """Four prompts of different lengths with pictures of different shapes, and four completions."""
    prompts = [
        encode_prompt(loaded, image_prompt("Describe the image." + " red" * i), [picture(i, *SIZES[i])])
        for i in range(4)
    ]
    texts = ("a red circle", "blue", "", "a large red circle is left of a small cross")
    return prompts, [encode_completion(loaded, text) for text in texts]
