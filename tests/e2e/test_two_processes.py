"""SFT and PPO under DeepSpeed ZeRO-2 with two processes on the CPU, from the chain's own outputs."""

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.distributed]


def environment(folder):
    return json.loads((folder / "environment.json").read_text())


def test_sft_under_zero2(smoke, tmp_path, cli):
    out = tmp_path / "sft"
    done = cli(
        "run",
        "scenes/sft",
        f"model.id={smoke}/base/final",
        f"data.root={smoke}/data",
        f"run.output_dir={out}",
        "trainer.max_steps=4",
        "trainer.warmup_steps=1",
        "trainer.per_device_train_batch_size=8",
        "run.log_every_steps=1",
        "run.eval_every_steps=4",
        "--launch",
        "zero2",
        "--processes",
        "2",
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert (out / "final" / "adapter_model.safetensors").exists()
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert max(step["step"] for step in steps) == 4
    assert environment(out)["processes"] == 2


def test_ppo_under_zero2(smoke, tmp_path, cli):
    out = tmp_path / "ppo"
    done = cli(
        "run",
        "scenes/ppo",
        f"model.id={smoke}/sft/final",
        f"data.root={smoke}/data",
        f"rewards.1.model={smoke}/reward/final",
        f"run.output_dir={out}",
        "ppo.iterations=2",
        "rollout.prompts_per_iteration=16",
        "guards.calibration_samples=32",
        "run.eval_every_steps=2",
        "--launch",
        "zero2",
        "--processes",
        "2",
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert (out / "final" / "adapter_model.safetensors").exists()
    assert environment(out)["processes"] == 2
