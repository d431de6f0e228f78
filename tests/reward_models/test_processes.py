"""Two processes train the same reward model as one, under plain data parallelism and every ZeRO stage."""

import json
import os
import subprocess
import sys

import pytest

from reward_models.config import read_config
from toolkit.config.loading import resolved_yaml
from toolkit.config.schema import EnsembleSpec, LoraSpec, ModelSpec, QuantizationSpec

KINDS = {
    "lora": {"lora": LoraSpec(rank=4, alpha=8)},
    "nf4": {"lora": LoraSpec(rank=4, alpha=8), "quantization": QuantizationSpec()},
}


def run(recipe, folder, repository, *launch):
    path = folder / "recipe.yaml"
    path.write_text(resolved_yaml(recipe))
    command = [sys.executable, *launch, "-m", "recipes.reward", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, timeout=600
    )
    metrics = folder / "run" / "metrics.jsonl"
    assert metrics.exists(), done.stderr[-4000:]
    assert (folder / "run" / "finished.json").exists(), done.stderr[-4000:]
    return [json.loads(line) for line in metrics.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(
    ("kind", "launch"),
    [
        ("lora", "ddp"),
        ("lora", "zero1"),
        ("lora", "zero2"),
        ("lora", "zero3"),
        ("nf4", "zero2"),
        ("nf4", "zero3"),
    ],
)
def test_two_processes_equal_one(kind, launch, bases, pair_folder, new_recipe, tmp_path, repository):
    model = ModelSpec(id=str(bases["llava"]), **KINDS[kind])

    def recipe(folder, batch):
        options = {"per_device_train_batch_size": batch, "max_grad_norm": 0.05}
        return new_recipe(bases["llava"], pair_folder, folder / "run", steps=4, model=model, trainer=options)

    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = run(recipe(tmp_path / "one", 8), tmp_path / "one", repository)
    configuration = repository / "recipes" / "accelerate" / "cpu" / f"{launch}.yaml"
    launcher = [
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(configuration),
        "--num_processes",
        "2",
    ]
    two = run(recipe(tmp_path / "two", 4), tmp_path / "two", repository, *launcher)
    for name in ("loss", "accuracy", "margin", "eval_loss", "eval_margin"):
        expected = [line[name] for line in one if name in line]
        assert [line[name] for line in two if name in line] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    first, second = (read_config(tmp_path / name / "run" / "final") for name in ("one", "two"))
    assert second.score_mean == pytest.approx(first.score_mean, abs=1e-5)


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_train_the_ensemble_that_one_trains(
    bases, pair_folder, new_recipe, tmp_path, repository
):
    def recipe(folder, batch):
        folder.mkdir()
        options = {"per_device_train_batch_size": batch}
        members = EnsembleSpec(members=2)
        return new_recipe(
            bases["llava"], pair_folder, folder / "run", steps=3, trainer=options, ensemble=members
        )

    one = run(recipe(tmp_path / "one", 8), tmp_path / "one", repository)
    configuration = repository / "recipes" / "accelerate" / "cpu" / "ddp.yaml"
    launcher = [
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(configuration),
        "--num_processes",
        "2",
    ]
    two = run(recipe(tmp_path / "two", 4), tmp_path / "two", repository, *launcher)
    assert [line["member_accuracy"] for line in one] == [line["member_accuracy"] for line in two]
    for member in ("member-0", "member-1"):
        first, second = (read_config(tmp_path / name / "run" / "final" / member) for name in ("one", "two"))
        assert second.score_mean == pytest.approx(first.score_mean, abs=1e-5)
        assert second.score_std == pytest.approx(first.score_std, abs=1e-5)
