# ruff: noqa: E501 - messages are shown whole
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import toolkit.config.combination_checks as combination_checks
from toolkit.config.checks import check_recipe
from toolkit.config.launchers import launch_problem
from toolkit.config.loading import load_recipe, parse_recipe
from toolkit.config.reward_checks import REWARD_TERMS
from toolkit.errors import RecipeError


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combination_checks, "gpu_count", lambda: 0)


@pytest.fixture
def inputs(in_tmp_path: Path) -> Path:
    """A folder with data, an adapter, a whole model and a reward model; it is the current directory."""
    for name in ("data/images", "sft/final", "base", "reward/final"):
        (in_tmp_path / name).mkdir(parents=True)
    (in_tmp_path / "data/captions.json").write_text("{}")
    (in_tmp_path / "data/pairs.jsonl").write_text("")
    (in_tmp_path / "sft/final/adapter_config.json").write_text("{}")
    (in_tmp_path / "base/config.json").write_text("{}")
    (in_tmp_path / "reward/final/reward_config.json").write_text("{}")
    return in_tmp_path


VAL = "data.val=[{kind: caption, captions: captions.json, images: images}]"


def rl(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "stage": "rl",
        "model": {"id": "sft/final"},
        "data": {
            "root": "data",
            "train": [{"kind": "caption", "captions": "captions.json", "images": "images"}],
        },
        "rewards": [{"term": "cider"}, {"term": "learned", "model": "reward/final"}],
        "run": {"output_dir": "rl"},
    }
    return values | changes


def pairs(stage: str, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "stage": stage,
        "model": {"id": "sft/final"},
        "data": {"root": "data", "train": [{"kind": "rows", "file": "pairs.jsonl"}]},
        "run": {"output_dir": stage},
    }
    return values | changes


def evaluation(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "stage": "eval",
        "systems": [{"name": "base", "model": {"id": "base"}}, {"name": "sft", "model": {"id": "sft/final"}}],
        "data": {
            "root": "data",
            "test": [{"kind": "caption", "captions": "captions.json", "images": "images"}],
        },
        "run": {"output_dir": "eval"},
    }
    return values | changes


def found(
    values: dict[str, Any], overrides: list[str] | tuple[str, ...] = (), launch: str = "none"
) -> list[str]:
    try:
        check_recipe(parse_recipe(values, overrides), launch=launch)
    except RecipeError as error:
        return error.problems
    return []


def test_correct_recipes_pass(inputs: Path) -> None:
    assert found(rl()) == []
    assert found(pairs("reward")) == []
    assert found(pairs("preference")) == []
    assert found(evaluation(differences=[["sft", "base"], ["sft", "human"]], blind_from="sft")) == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.root=gone"], "data.root: expected a folder, found nothing at 'gone'; set data.root=DIR, or make a sample: vlm-rlhf data sample --out gone"),
        (["data.root=base/config.json"], "data.root: expected a folder, 'base/config.json' is a file"),
        (["data.train.0.captions=gone.json"], "data.train.0.captions: expected a file, found nothing at 'data/gone.json'"),
        (["data.train.0.captions=images"], "data.train.0.captions: expected a file, 'data/images' is a folder"),
        (["data.train.0.images=gone"], "data.train.0.images: expected a folder of images, found nothing at 'data/gone'"),
        (["model.id=out/quickstart/sft/final"], "first run the stage that writes it: vlm-rlhf run RECIPE run.output_dir=out/quickstart/sft"),
        (["model.id=out/scenes/sft/final"], "model.id: expected a model directory, found nothing at 'out/scenes/sft/final'; first run: vlm-rlhf run scenes/sft"),
        (["model.id=sft"], "model.id: expected a model or adapter, 'sft' has no config.json or adapter_config.json; did you mean 'sft/final'?"),
        (["model.id=base/config.json"], "model.id: expected a model directory or hub id, 'base/config.json' is a file"),
        (["model.id=base/gone"], "model.id: expected a model directory, found nothing at 'base/gone'"),
        (["rewards.1.model=null"], "rewards.1.model: expected the directory of a reward model (a learned term needs one), found nothing"),
        (["rewards.1.model=gone/final"], "rewards.1.model: expected a reward model, found nothing at 'gone/final'; first run"),
        (["rewards.1.model=reward"], "rewards.1.model: expected a reward model, 'reward' has no reward_config.json; did you mean 'reward/final'?"),
        (["rewards.0.model=reward/final"], "rewards.0.model: only a learned term has a model, this one is 'cider'"),
        (["rewards.0.term=cidr"], "found 'cidr'; did you mean 'cider'?"),
        (["rewards.0.term=gone.py:reward"], "rewards.0.term: expected a Python file, found nothing at 'gone.py'"),
        (["rewards.0.term=no_such_module_here:reward"], "rewards.0.term: there is no module 'no_such_module_here'"),
        (["rewards.0.term='a:b c'"], "rewards.0.term: expected module:function or file.py:function, found 'a:b c'"),
        (["rewards.0={term: clipscore, options: {model: ./clip}}"], "rewards.0.options.model: expected a model directory, found nothing at './clip'"),
        (["rewards.0.name=learned"], "rewards.1.name: 'learned' is taken"),
        (["rewards.0.clip=[2, 1]"], "rewards.0.clip: expected [low, high], found [2, 1]"),
        (["model.dtype=float16"], "model.dtype: float16 needs a GPU"),
        (["model.quantization.compute_dtype=float16"], "model.quantization.compute_dtype: float16 takes seconds"),
        (["model.attn_implementation=flash_attention_2"], "model.attn_implementation: flash_attention_2 needs a GPU"),
        (["model.id=base", "model.quantization.bits=4"], "model.quantization: quantised weights cannot be trained; add model.lora"),
        (["model.id=base"], "model.lora: the rl stage trains an adapter on a frozen base, 'base' is a model without one: add model.lora"),
        (["model.id=base", "ppo.critic=adapter"], "model.lora: the rl stage trains an adapter"),
        (["model.id=base", "ppo.estimator=rloo", "rollout.samples_per_prompt=4"], "model.lora: the rl stage trains an adapter"),
        (["ppo.final=best"], "ppo.final: 'best' is chosen by held-out scores: expected data.val and run.eval_every_steps too"),
        (["ppo.best_metric=cider", VAL], "ppo.best_metric: 'cider' is chosen by held-out scores: expected run.eval_every_steps too"),
        (["ppo.best_metric=cider", "run.eval_every_steps=5"], "ppo.best_metric: 'cider' is chosen by held-out scores: expected data.val too"),
        (["ppo.estimator=rloo"], "rollout.samples_per_prompt: ppo.estimator 'rloo' compares the samples of a prompt: expected at least 2, found 1"),
        (["ppo.estimator=scst", "rewards.0.normalise=group"], "rewards: a greedy baseline is one sample a prompt"),
        (["ppo.estimator=running", "ppo.gae_lambda=0.9"], "ppo.gae_lambda: estimator 'running' has no critic"),
        (["ppo.potential_term=cidr"], "ppo.potential_term: expected a reward term (cider, learned), found 'cidr'"),
        (["ppo.potential_weight=2.0"], "ppo.potential_weight: needs ppo.potential_term"),
        (["ppo.baseline_decay=0.5"], "ppo.baseline_decay: only estimator 'running' has one, found 'gae'"),
        (["ppo.minibatches=65"], "ppo.minibatches: 64 samples an iteration cannot be cut into 65 parts"),
        (["ppo.critic_warmup_iterations=40"], "ppo.critic_warmup_iterations: the policy never trains: all 40 iterations are warm-up"),
        (["kl.controller=adaptive", "kl.coefficient=0"], "kl.coefficient: an adaptive controller multiplies it"),
        (["ppo.minibatches=3"], "ppo.minibatches: rollout.prompts_per_iteration × samples_per_prompt = 64 must divide"),
        (["kl.target_nats=3"], "kl.target_nats: is read by kl.controller 'adaptive', found 'fixed'"),
        (["ppo.best_metric=cidr", "run.eval_every_steps=5", VAL], "ppo.best_metric: expected one of cider, learned, score, mean_tokens, found 'cidr'"),
        (["model.id=reward/final"], "model.id: 'reward/final' is a reward model; expected a policy"),
        (["rewards.0.weight=0", "rewards.1.weight=0"], "rewards: every term weighs 0"),
        (["rewards.0.normalise=group"], "rewards.0.normalise: 'group' compares the samples of a prompt"),
        (["optimizer.betas=[0.9,1.0]"], "optimizer.betas.1"),
        (["kl.controller=adaptive", "kl.horizon=12"], "kl.horizon: found 12 with 64 completions an iteration"),
        (["rewards.0.name=score"], "rewards.0.name: 'score' is a number of the log already"),
        (["run.eval_every_steps=5"], "run.eval_every_steps: nothing to evaluate on: data.val is empty"),
        (["rollout.vllm.max_requests=4"], "rollout.vllm: is read with rollout.backend 'vllm', found 'transformers'"),
        (["rollout.backend=vllm", "model.id=base"], "model.lora: the rl stage trains an adapter"),
        (["rollout.backend=vllm", "rollout.vllm.mismatch_action=off", "rollout.vllm.mismatch_max_nats=0.1"], "mismatch_action is 'off': take the line out"),
        (["rollout.backend=vllm", "rollout.vllm.url=localhost:8000"], "rollout.vllm.url: "),
        (["rollout.backend=vllm", "rollout.vllm.importance_cap=0.5"], "rollout.vllm.importance_cap: "),
    ],
)  # fmt: skip
def test_rl_problems(inputs: Path, overrides: list[str], expected: str) -> None:
    problems = found(rl(), overrides)
    assert any(expected in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("launch", "overrides", "expected"),
    [
        ("zero3", ["model.quantization.storage_dtype=bfloat16"], "expected 'float32' as in model.dtype, found 'bfloat16'"),
        ("zero3", ["model.quantization.bits=8"], "model.quantization.bits: 8-bit weights cannot be split by zero3"),
        ("fsdp", ["model.quantization.bits=4"], "model.quantization.storage_dtype: fsdp splits weights of one dtype"),
        ("zero2-offload", ["optimizer.name=adamw_8bit"], "optimizer.name: zero2-offload brings its own AdamW"),
        ("zero3", ["model.quantization.bits=4"], None),
        ("zero3", ["model.quantization.storage_dtype=float32"], None),
        ("zero2", ["model.quantization.bits=8", "ppo.critic=adapter", "model.gradient_checkpointing=true"], None),
    ],
)  # fmt: skip
def test_launcher_problems(inputs: Path, launch: str, overrides: list[str], expected: str | None) -> None:
    problems = found(rl(), overrides, launch)
    if expected is None:
        assert problems == []
    else:
        assert any(expected in problem for problem in problems), problems


def test_what_rl_needs_is_not_missed_where_it_is_there(inputs: Path) -> None:
    assert found(rl(), ["model.id=base", "model.lora.rank=4", "ppo.critic=adapter"]) == []
    assert found(rl(), [VAL, "run.eval_every_steps=5", "ppo.final=best", "ppo.best_metric=cider"]) == []


def test_a_resolved_recipe_whose_server_is_not_watched_can_be_run_again(inputs: Path) -> None:
    every_key = [
        "rollout.backend=vllm",
        "rollout.vllm.mismatch_action=off",
        "rollout.vllm.mismatch_max_nats=0.05",
    ]
    assert found(rl(), every_key) == []


def test_rl_is_refused_under_fsdp_however_it_is_named(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.yaml").write_text("distributed_type: FSDP\n")
    Path("other.yaml").write_text("distributed_type: DEEPSPEED\n")
    for launch in ("fsdp", "mine.yaml"):
        (problem,) = found(rl(), launch=launch)
        assert "an rl recipe does not run under FSDP: it samples and saves from whole weights" in problem
        assert launch_problem("rl", launch, None) is not None
        assert found(pairs("preference"), launch=launch) == []
    assert found(rl(), launch="other.yaml") == []
    assert launch_problem("rl", "other.yaml", None) is launch_problem("sft", "fsdp", None) is None
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert len(found(rl())) == 1


def test_a_misspelt_term_is_not_blamed_for_its_model(inputs: Path) -> None:
    problems = found(rl(), ["rewards.1.term=lerned"])
    assert len(problems) == 1
    assert problems[0].endswith("found 'lerned'; did you mean 'learned'?")


def test_pairs_come_from_rows(inputs: Path) -> None:
    source = {"kind": "caption", "captions": "captions.json", "images": "images"}
    for stage in ("reward", "preference"):
        problems = found(pairs(stage, data={"root": "data", "train": [source]}))
        assert (
            "data.train.0.kind: expected 'rows' (chosen and rejected completions), found 'caption'"
            in problems[0]
        )


def test_trainer_options_and_half_precision(inputs: Path) -> None:
    problems = found(pairs("preference", trainer={"betta": 0.1, "bf16": True, "output_dir": "x"}))
    assert any("trainer.betta: expected an option of DPOConfig" in line for line in problems)
    assert any("trainer.bf16: needs a GPU" in line for line in problems)
    assert any(
        "trainer.output_dir: expected no such key, the toolkit sets it; use run.output_dir" in line
        for line in problems
    )


def test_early_stopping_needs_held_out_pairs(inputs: Path) -> None:
    problems = found(pairs("reward", early_stopping_patience=2))
    assert problems == ["early_stopping_patience: needs held-out pairs: data.val is empty"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"blind_from": "stf"}, "blind_from: expected one of the systems base, sft, found 'stf'; did you mean 'sft'?"),
        ({"differences": [["sft", "bse"]]}, "differences.0: expected two of base, sft, blind, human, found 'bse'; did you mean 'base'?"),
        ({"preference_pairs": ["pairs.jsonl"]}, "preference_pairs: is read together with reward_model, which is not set"),
        ({"reward_model": "gone"}, "reward_model: expected a reward model, found nothing at 'gone'"),
        ({"scenes": "gone.jsonl"}, "scenes: expected a file, found nothing at 'data/gone.jsonl'"),
        ({"systems": [{"name": "human", "model": {"id": "base"}}]}, "systems.0.name: 'human' is taken"),
    ],
)  # fmt: skip
def test_evaluation_problems(inputs: Path, changes: dict[str, Any], expected: str) -> None:
    problems = found(evaluation(**changes))
    assert any(expected in problem for problem in problems), problems


def test_report_needs_its_runs(inputs: Path) -> None:
    values = {
        "stage": "report",
        "runs": ["sft", "gone"],
        "evaluation": "eval",
        "run": {"output_dir": "report"},
    }
    assert [line.partition(":")[0] for line in found(values)] == ["runs.1", "evaluation"]


def test_problems_name_the_line_and_the_recipe_that_makes_what_is_missing(inputs: Path) -> None:
    Path("sft.yaml").write_text("stage: sft\nrun:\n  output_dir: out/mine\n")
    values = pairs("reward")
    values["model"]["id"] = "out/mine/final"
    Path("reward.yaml").write_text(json.dumps(values, indent=1))
    with pytest.raises(RecipeError) as caught:
        check_recipe(load_recipe("reward.yaml"), Path("reward.yaml"))
    assert caught.value.exit_code == 2
    assert caught.value.problems == [
        "reward.yaml:4  model.id: expected a model directory, found nothing at 'out/mine/final'; first run: vlm-rlhf run sft.yaml"
    ]
    with pytest.raises(RecipeError) as caught:
        check_recipe(load_recipe("reward.yaml", ["model.id=out/gone/final"]), Path("reward.yaml"))
    assert caught.value.problems[0].startswith("reward.yaml  model.id: ")


def test_reward_terms_are_those_that_can_be_built() -> None:
    building = pytest.importorskip("toolkit.rewards.building")
    assert set(REWARD_TERMS) == set(building.TERM_NAMES)


# ---- chains ----------------------------------------------------------------------------------------------------


def chain(stages: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "stage": "pipeline",
        "prepare": "none",
        "stages": stages,
        "run": {"output_dir": "out/chain", "seed": 5},
    }


def test_a_chain_counts_what_earlier_stages_write_as_present(inputs: Path) -> None:
    Path("reward.yaml").write_text(json.dumps(pairs("reward")))
    Path("rl.yaml").write_text(json.dumps(rl()))
    first = {"name": "rm", "recipe": "reward.yaml"}
    second = {"name": "ppo", "recipe": "rl.yaml", "overrides": {"rewards.1.model": "{out}/rm/final"}}
    assert found(chain([first, second])) == []
    assert "found nothing at 'out/chain/rm/final'" in found(chain([second, first]))[0]


def test_a_chain_reports_the_problems_of_all_links(inputs: Path) -> None:
    Path("rl.yaml").write_text(json.dumps(rl()))
    stages = [
        {"name": "a", "recipe": "gone.yaml"},
        {"name": "b", "recipe": "rl.yaml", "overrides": {"ppo.itertions": 3}},
        {"name": "b", "recipe": "rl.yaml"},
    ]
    problems = found(chain(stages))
    assert problems[0].startswith("stages.0 (a)  expected a recipe file or name, found neither")
    assert "override 'ppo.itertions'  ppo.itertions" in problems[1]
    assert problems[2] == "stages.2.name: 'b' is taken by an earlier stage"


@pytest.mark.parametrize("name", ["scenes/quickstart", "scenes/smoke"])
def test_the_chains_that_come_along_are_correct(in_tmp_path: Path, name: str) -> None:
    from toolkit.config.catalogue import find_recipe

    path = find_recipe(name)
    check_recipe(load_recipe(path), path)
