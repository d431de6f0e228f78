"""Phase 1 on another program: a server with vLLM's protocol, on a real model (``vllm_stand_in``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText

from toolkit.config.schema import ModelSpec
from toolkit.errors import EnvironmentLacking, RecipeError
from toolkit.models.loading import load_vlm
from toolkit.models.roles import role_parameters
from toolkit.rl.sampler_agreement import importance_weighted, mismatch
from toolkit.rl.trainer import PpoTrainer
from toolkit.rl.vllm_sampler import SamplerFailed, check_layers

from .conftest import load_policy
from .vllm_stand_in import StandIn

Build = Callable[..., PpoTrainer]

# A random model gives image placeholders some probability, which the sampler takes away and scoring does not.
PLACEHOLDERS = 2e-3


def through(server: StandIn, **settings: object) -> dict[str, Any]:
    """Changes of a recipe that samples there."""
    vllm = {"url": server.url, "retry_seconds": 0.2, **settings}
    return {
        "model": {"id": str(server.base)},
        "rollout": {"prompts_per_iteration": 8, "max_new_tokens": 8, "backend": "vllm", "vllm": vllm},
    }


def logged(trainer: PpoTrainer, name: str) -> list[float]:
    lines = (trainer.run.path / "metrics.jsonl").read_text().splitlines()
    return [row[name] for row in map(json.loads, lines) if name in row]


def test_a_run_samples_there_and_trains_here(base: Path, make_trainer: Build) -> None:
    with StandIn(base) as server:
        trainer = make_trainer(**through(server))
        start = [value.clone() for _, value in role_parameters(trainer.vlm.model, "default")]
        trainer.train()
        loads = [body["lora_name"] for body in server.bodies("/v1/load_lora_adapter")]
        gone = [body["lora_name"] for body in server.bodies("/v1/unload_lora_adapter")]
        asked = {body["model"] for body in server.bodies("/inference/v1/generate")}
        assert not server.adapters
    # Calibration and the first iteration see one policy, each later iteration another.
    assert len(loads) == len(set(loads)) == 3
    assert gone == loads
    assert asked == set(loads)
    assert not (trainer.run.path / "vllm-adapters").exists()
    moved = [value for _, value in role_parameters(trainer.vlm.model, "default")]
    assert any(not torch.equal(a, b) for a, b in zip(start, moved, strict=True))
    found = logged(trainer, "rollout/vllm_mismatch_nats")
    assert len(found) == 3
    assert max(found) < PLACEHOLDERS


@pytest.mark.parametrize("draws", ["batch", "row"])
def test_requests_carry_everything_that_decides(base: Path, make_trainer: Build, draws: str) -> None:
    with StandIn(base) as server:
        changes = through(server)
        changes["rollout"] |= {"samples_per_prompt": 2, "temperature": 0.7, "draws": draws}
        trainer = make_trainer(**changes)
        worker, rows = trainer.worker, trainer.rows[:3]
        own = [11, 12, 13, 14, 15, 16] if draws == "row" else None
        prompts, first = worker.sample(rows, seed=5, samples=2, row_seeds=own)
        _, again = worker.sample(rows, seed=5, samples=2, row_seeds=own)
        _, other = worker.sample(rows, seed=6, samples=2, row_seeds=own and [seed + 100 for seed in own])
        bodies = server.bodies("/inference/v1/generate")[: 6 if own else 3]
        worker.__exit__()
    assert len(prompts) == len(first) == 6
    assert [item.text for item in first] == [item.text for item in again]
    assert [item.text for item in first] != [item.text for item in other]
    assert {body["sampling_params"]["n"] for body in bodies} == {1 if own else 2}
    seeds = [body["sampling_params"]["seed"] for body in bodies]
    assert sorted(seeds) == own if own else len(set(seeds)) == 3
    for settings in (body["sampling_params"] for body in bodies):
        assert settings["stop_token_ids"] == sorted(trainer.vlm.eos_ids)
        assert settings["ignore_eos"]
        assert settings["temperature"] == 0.7
        assert settings["max_tokens"] == 8
        placeholders = trainer.vlm.family.placeholder_ids(trainer.vlm.processor)
        assert settings["logit_bias"] == {str(token): -100.0 for token in placeholders}
    assert all(len(body["content_parts"]) == 1 for body in bodies)


def test_log_probabilities_are_those_of_the_sampled_tokens(base: Path, make_trainer: Build) -> None:
    with StandIn(base) as server:
        changes = through(server)
        changes["rollout"] |= {"temperature": 0.7}
        trainer = make_trainer(**changes)
        rollout = trainer._collect(3)
        total, tokens = mismatch(rollout) or (9.0, 1.0)
        trainer.worker.__exit__()
    assert tokens == sum(len(item.token_ids) for item in rollout.completions)
    assert total / tokens < PLACEHOLDERS
    # One token of the server's twice as likely as ours moves the mean by log 2 over all tokens.
    theirs = rollout.completions[0].logprobs
    assert theirs is not None
    theirs[0] += 0.6931472
    moved, _ = mismatch(rollout) or (0.0, 1.0)
    assert moved - total == pytest.approx(0.6931472, abs=1e-4)


def test_importance_weights_are_truncated_ratios(base: Path, make_trainer: Build) -> None:
    with StandIn(base) as server:
        trainer = make_trainer(**through(server, importance_cap=1.5))
        work = trainer._experience(1)
        trainer.worker.__exit__()
    before = work.experience
    assert torch.allclose(
        importance_weighted(before, trainer.recipe.rollout).advantages,
        before.advantages,
        rtol=10 * PLACEHOLDERS,
    )
    longest = max(before.rollout.completions, key=lambda item: len(item.token_ids))
    row = before.rollout.completions.index(longest)
    assert longest.logprobs is not None
    assert len(longest.token_ids) > 1
    longest.logprobs[0] -= 3.0  # ours is e**3 times as likely: cut to the cap
    longest.logprobs[1] += 0.6931472  # half as likely: the weight is that
    after = importance_weighted(before, trainer.recipe.rollout).advantages / before.advantages
    assert float(after[row, 0]) == pytest.approx(1.5)
    assert float(after[row, 1]) == pytest.approx(0.5, rel=10 * PLACEHOLDERS)
    plain = trainer.recipe.rollout.model_copy(update={"vllm": None})
    off = trainer.recipe.rollout.vllm.model_copy(update={"importance_cap": None})  # type: ignore[union-attr]
    assert importance_weighted(before, plain.model_copy(update={"vllm": off})) is before


# ---- what goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["drops_pixels", "keeps_first_adapter", "raw_logprobs", "half_weights"])
def test_a_server_that_draws_from_something_else_stops_the_run(
    base: Path, make_trainer: Build, fault: Any
) -> None:
    with StandIn(base, fault=fault) as server:
        limit = 1e-3 if fault == "half_weights" else 0.05
        changes = through(server, mismatch_max_nats=limit)
        changes["rollout"] |= {"temperature": 0.7}
        trainer = make_trainer(ppo={"iterations": 3, "epochs": 4}, **changes)
        with pytest.raises(SamplerFailed, match="nats a token from ours") as caught:
            trainer.train()
    assert "--logprobs-mode" in str(caught.value)
    assert caught.value.exit_code == 1
    step = 1 if fault == "keeps_first_adapter" else 0
    assert trainer.iteration == step
    assert (trainer.run.path / f"checkpoint-{step}").is_dir()


def test_the_guard_only_warns_where_the_recipe_says_so(
    base: Path, make_trainer: Build, caplog: pytest.LogCaptureFixture
) -> None:
    with StandIn(base, fault="drops_pixels") as server:
        trainer = make_trainer(ppo__iterations=1, **through(server, mismatch_action="warn"))
        trainer.train()
    assert "nats a token from ours" in caplog.text
    assert logged(trainer, "rollout/vllm_mismatch_nats")[0] > 0.05


def test_another_prompt_is_refused_before_training(base: Path, make_trainer: Build) -> None:
    with StandIn(base, fault="another_prompt") as server:
        trainer = make_trainer(**through(server))
        with pytest.raises(
            SamplerFailed, match=r"prompt of \d+ tokens as \d+ tokens; the first difference is at token 0"
        ):
            trainer.train()
    assert not list(trainer.run.path.glob("checkpoint-*"))


def test_a_server_that_dies_leaves_a_checkpoint_and_resume_equals_the_whole_run(
    base: Path, make_trainer: Build
) -> None:
    with StandIn(base) as server:
        whole = make_trainer(name="whole", **through(server))
        whole.train()
    with StandIn(base, dies_after=8 + 8 + 3) as server:  # in the second iteration
        broken = make_trainer(name="broken", **through(server))
        with pytest.raises(SamplerFailed, match="is gone") as caught:
            broken.train()
        broken.run.release()
    assert "--resume" in str(caught.value)
    assert caught.value.exit_code == 1
    with StandIn(base) as server:
        resumed = make_trainer(name="broken", resume=True, **through(server))
        resumed.train(resume=True)
    assert resumed.iteration == 3
    for name in ("reward/total", "kl/k1_nats", "policy/loss"):
        assert logged(resumed, name) == pytest.approx(logged(whole, name), abs=1e-6), name


def test_an_adapter_that_the_server_cannot_read_is_told(base: Path, make_trainer: Build) -> None:
    with StandIn(base) as server:
        trainer = make_trainer(**through(server))
        load = server._load
        server._load = lambda body: load({**body, "lora_path": "/elsewhere"} if body else body)  # type: ignore[method-assign]
        with pytest.raises(SamplerFailed, match="No adapter found for /elsewhere") as caught:
            trainer.train()
    assert str(trainer.run.path) in str(caught.value)


# ---- before anything is trained ----------------------------------------------------------------------------------


def test_nobody_there(base: Path, make_trainer: Build) -> None:
    with StandIn(base) as server:
        changes = through(server)
    with pytest.raises(EnvironmentLacking, match="nobody answers at http://127") as caught:
        make_trainer(**changes)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve" in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("switches", "told"),
    [
        ({"lora_updating": False}, "VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
        ({"scale_out": False}, "--enable-scale-out"),
    ],
)
def test_a_server_without_a_switch(
    base: Path, make_trainer: Build, switches: dict[str, bool], told: str
) -> None:
    with StandIn(base, **switches) as server, pytest.raises(EnvironmentLacking, match=told):
        make_trainer(**through(server))


def test_another_base(base: Path, bases: dict[str, Path], make_trainer: Build) -> None:
    with StandIn(base) as server:
        changes = through(server)
        changes["model"] = {"id": str(bases["idefics3"])}
        with pytest.raises(RecipeError, match="serves") as caught:
            make_trainer(**changes)
        assert caught.value.exit_code == 2
        changes["rollout"]["vllm"]["served_model"] = str(base)
        make_trainer(name="named", **changes)  # the recipe's own word for it is taken


def test_an_adapter_of_the_tower_is_refused(base: Path, tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(base)
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(tmp_path)
    everywhere = load_vlm(ModelSpec(id=str(tmp_path)), trainable=True)
    with pytest.raises(RecipeError, match="adapts the language model alone; this adapter has 2 other parts"):
        check_layers(everywhere)
    check_layers(load_policy(base))
