"""The ``rl`` stage under launchers that know nothing of it: plain torchrun and accelerate, two processes over gloo."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from .conftest import load_policy, make_recipe, make_rows
from .test_distributed import ROOT, free_port

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

DDP = str(ROOT / "recipes" / "accelerate" / "cpu" / "ddp.yaml")


def commands(recipe: Path, out: Path) -> dict[str, list[str]]:
    """Command lines by launcher; the stage's own arguments are the same everywhere."""
    stage, port = [str(recipe), f"run.output_dir={out}"], str(free_port())
    python = sys.executable
    accelerate = [python, "-m", "accelerate.commands.launch", "--config_file", DDP]
    return {
        "one": [python, "-m", "recipes.rl", *stage],
        "ddp": [python, "-m", "toolkit", "run", *stage, "--launch", "ddp", "--processes", "2"],
        "torchrun": [python, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port,
                     "-m", "recipes.rl", *stage],
        "accelerate": [*accelerate, "--num_processes", "2", "--main_process_port", port, "-m", "recipes.rl", *stage],
    }  # fmt: skip


@pytest.fixture(scope="module")
def recipe(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe on disk with all it names: an adapter, pictures and rows; draws are those of the rows."""
    folder = tmp_path_factory.mktemp("stage")
    policy = load_policy(base)
    policy.model.save_pretrained(folder / "sft")
    policy.processor.save_pretrained(folder / "sft")
    lines = []
    for row in make_rows(16):
        name = f"{row.sample_id}.png"
        Image.open(io.BytesIO(row.images[0])).save(folder / name)  # type: ignore[arg-type]
        values = {"sample_id": row.sample_id, "task": row.task, "prompt": "Describe the image."}
        lines.append({**values, "images": [name], "image_id": row.image_id, "references": row.references})
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = make_recipe(
        folder / "unused", model__id=str(folder / "sft"), data__root=str(folder), ppo__iterations=2,
        rollout__draws="row", run__save_every_steps=1,
    )  # fmt: skip
    (folder / "ppo.json").write_text(made.model_dump_json(exclude_unset=True))
    return folder / "ppo.json"


def final_of(recipe: Path, out: Path, launcher: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The final adapter and what the run says of itself."""
    done = subprocess.run(
        commands(recipe, out)[launcher], cwd=ROOT, capture_output=True, text=True, timeout=400, check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    adapter = load_file(out / "final" / "adapter_model.safetensors")
    return adapter, json.loads((out / "environment.json").read_text())


@pytest.fixture(scope="module")
def expected(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """The adapters of one process and of ``--launch ddp``."""
    folder = tmp_path_factory.mktemp("expected")
    one, facts = final_of(recipe, folder / "one", "one")
    two, facts_of_two = final_of(recipe, folder / "ddp", "ddp")
    assert (facts["processes"], facts_of_two["processes"]) == (1, 2)
    return {"one": one, "ddp": two}


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_a_plain_launcher_trains_what_ours_does(
    recipe: Path, expected: dict[str, dict[str, torch.Tensor]], tmp_path: Path, launcher: str
) -> None:
    found, facts = final_of(recipe, tmp_path / "run", launcher)
    assert facts["processes"] == 2
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-1"]
    start = load_file(recipe.parent / "sft" / "adapter_model.safetensors")
    assert any(not torch.equal(value, start[name]) for name, value in found.items())
    for name, value in found.items():
        assert torch.equal(value, expected["ddp"][name]), name
        assert torch.allclose(value, expected["one"][name], atol=1e-4), name
