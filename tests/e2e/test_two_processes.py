"""SFT and PPO under DeepSpeed ZeRO with two processes on the CPU, from the chain's own outputs."""

import json

import pytest
from safetensors.torch import load_file

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


def test_ppo_under_zero3_is_that_of_one_process(smoke, tmp_path, cli):
    """Captions and questions, CIDEr and a reward model on the 4-bit base, whose forwards differ from rank to rank."""
    changes = [
        f"model.id={smoke}/sft/final",
        f"data.root={smoke}/data",
        f"rewards.1.model={smoke}/reward/final",
        "ppo.iterations=2",
        "rollout.prompts_per_iteration=16",
        "rollout.draws=row",
        "guards.calibration_samples=32",
        "run.eval_every_steps=2",
    ]
    for name, launched in (("one", []), ("two", ["--launch", "zero3", "--processes", "2"])):
        done = cli("run", "scenes/ppo", *changes, f"run.output_dir={tmp_path / name}", *launched)
        assert done.returncode == 0, done.stderr[-4000:]
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    rewards = {
        "reward/total",
        "reward/cider",
        "reward/learned",
        "reward/vqa_accuracy",
        "val/score",
        "val/learned",
    }
    compared = 0
    for first, second in zip(one, two, strict=True):
        for key in (rewards | {"kl/k1_nats", "policy/loss", "value/loss"}) & first.keys():
            assert second[key] == pytest.approx(first[key], abs=1e-3, nan_ok=True), key
            compared += 1
    assert compared > 2 * len(rewards)
    final = "final/adapter_model.safetensors"
    adapters = [load_file(tmp_path / name / final) for name in ("one", "two")]
    assert all(float((value - adapters[1][key]).abs().max()) < 1e-4 for key, value in adapters[0].items())


def test_one_process_finds_what_the_chain_s_two_found(smoke, tmp_path, cli):
    """The chain evaluates with two: they share the decoding, and the second measures the reward model."""
    out = tmp_path / "eval"
    systems = [
        f"systems.{index}.model.id={smoke}/{name}/final"
        for index, name in enumerate(("base", "sft", "ppo", "dpo"))
    ]
    done = cli(
        "run",
        "scenes/eval",
        f"data.root={smoke}/data",
        *systems,
        f"preference_pairs=[{smoke}/data/test/pairs_gold.jsonl]",
        f"reward_model={smoke}/reward/final",
        f"text_only_reward_model={smoke}/reward-text-only/final",
        f"run.output_dir={out}",
    )
    assert done.returncode == 0, done.stderr[-4000:]
    one, two = (json.loads((folder / "summary.json").read_text()) for folder in (out, smoke / "eval"))
    assert environment(out)["processes"] == 1
    assert environment(smoke / "eval")["processes"] == 2
    assert one["reward_model"]["by_source"]["on_policy"]["n"] > 0
    assert {**one, "seconds": None} == {**two, "seconds": None}
