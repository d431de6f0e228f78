"""The critic-free recipes run: every value of the file but its model, data, terms and sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipes.rl import run
from toolkit.config.catalogue import find_recipe
from toolkit.config.checks import check_recipe
from toolkit.config.loading import load_recipe
from toolkit.config.schema import RlRecipe, TinyArchitecture
from toolkit.models.families.llava import build_tiny_llava
from toolkit.runs.directory import RunDirectory

CAPTIONS = (
    "a red circle above a blue square",
    "two green crosses",
    "a small yellow triangle",
    "a blue cross",
)


@pytest.fixture
def inputs(in_tmp_path: Path) -> Path:
    """A random tiny model, four pictures with captions, a reward of the letter e; the current directory."""
    import torch
    from PIL import Image

    sizes = dict.fromkeys(("vision_hidden", "vision_mlp", "text_hidden", "text_mlp"), 64)
    architecture = TinyArchitecture(
        image_size=24, vision_layers=1, vision_heads=2, text_layers=1, text_heads=2, vocabulary=300, **sizes
    )
    model, processor = build_tiny_llava(architecture, texts=[*CAPTIONS, "Describe the image."] * 20, seed=0)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(10.0)  # a fresh model is uniform over its vocabulary
    model.save_pretrained("base")
    processor.save_pretrained("base")
    for start, part in ((0, "train"), (4, "val")):
        Path(part, "images").mkdir(parents=True)
        numbers = range(start, start + 4)
        for number in numbers:
            Image.new("RGB", (24, 24), (30 * number, 9, 200)).save(f"{part}/images/{number}.png")
        images = [{"id": number, "file_name": f"{number}.png"} for number in numbers]
        annotations = [{"id": n, "image_id": n, "caption": CAPTIONS[n - start]} for n in numbers]
        Path(part, "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    Path("letters.py").write_text(
        "def letters(completions, **columns):\n    return [c[0]['content'].count('e') for c in completions]\n"
    )
    return in_tmp_path


@pytest.mark.parametrize("name", ["rloo", "grpo", "scst", "reinforce"])
def test_a_critic_free_recipe_runs(inputs: Path, name: str) -> None:
    sources = {
        part: [{"kind": "caption", "captions": f"{part}/captions.json", "images": f"{part}/images"}]
        for part in ("train", "val")
    }
    recipe = load_recipe(
        find_recipe(f"scenes/{name}"),
        {
            "model": {"id": "base", "lora": {"rank": 4}},
            "data.root": ".",
            "data.train": sources["train"],
            "data.val": sources["val"],
            "rewards": [{"term": "letters.py:letters", "normalise": "frozen"}],
            "rollout.prompts_per_iteration": 4,
            "rollout.max_new_tokens": 12,
            "ppo.iterations": 2,
            "guards": {"calibration_samples": 64},
            "run.eval_every_steps": 1,
        },
    )
    assert isinstance(recipe, RlRecipe)
    assert recipe.ppo.estimator == {"reinforce": "running"}.get(name, name)
    assert recipe.rollout.samples_per_prompt == (4 if name in ("rloo", "grpo") else 1)
    check_recipe(recipe)
    directory = RunDirectory(recipe.run.output_dir)
    directory.prepare(recipe)
    run(recipe, directory, False)
    directory.release()
    assert (inputs / "out" / "scenes" / name / "final" / "adapter_model.safetensors").is_file()
    lines = directory.metrics.read()
    assert lines[-1]["step"] == 2
    assert not any(key.startswith("value/") for line in lines for key in line)
