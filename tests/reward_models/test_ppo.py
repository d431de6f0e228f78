"""PPO on learned rewards: an ensemble and a single model as adapters on the policy's own base, frozen, and logged."""

import gc
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from recipes.rl import held_out_evaluation, load_learned, run
from reward_models.checkpoint import describe, save_reward_model
from reward_models.config import CONFIG_FILE
from reward_models.ensemble import EnsembleReward
from reward_models.scorer import LearnedReward
from toolkit.config.schema import QuantizationSpec, RlRecipe
from toolkit.data.sources import load_parts, load_prompt_rows
from toolkit.errors import CheckpointError
from toolkit.models.loading import load_vlm
from toolkit.models.roles import role_parameters, roles_of
from toolkit.models.structure import trunk
from toolkit.records import image_prompt
from toolkit.rewards.building import build_reward
from toolkit.rl.memory import memory_by_part
from toolkit.rl.trainer import PpoTrainer
from toolkit.runs.directory import RunDirectory


@pytest.fixture(scope="module")
def ensemble(bases, new_reward, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble")
    for index in range(2):
        model, spec = new_reward(bases["llava"], seed=10 + index)
        (folder / f"member-{index}").mkdir()
        config = describe(model.vlm, spec, score_mean=0.1 * index)
        save_reward_model(model, folder / f"member-{index}", config)
    whole = config.model_copy(update={"members": 2, "std_penalty": 0.5, "score_mean": 0.0})
    (folder / CONFIG_FILE).write_text(whole.model_dump_json())
    return folder


@pytest.fixture
def recipe(bases, ensemble, saved_reward, tmp_path):
    colours = ["red", "green", "blue", "yellow"]
    lines = []
    for index, colour in enumerate(colours * 2):
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{index}.png")
        row = {"sample_id": f"row{index}", "task": "caption", "prompt": "Describe the image."}
        lines.append(
            {**row, "images": [f"{index}.png"], "image_id": index, "references": [f"a {colour} one"]}
        )
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return RlRecipe.model_validate(
        {
            "stage": "rl",
            "model": {"id": str(bases["llava"]), "lora": {"rank": 4, "alpha": 8}},
            "data": {"root": str(tmp_path), "train": [{"kind": "rows", "file": "rows.jsonl"}]},
            "rewards": [
                {"term": "learned", "model": str(ensemble)},
                {"term": "learned", "model": str(saved_reward), "name": "single"},
            ],
            "rollout": {"prompts_per_iteration": 8, "max_new_tokens": 4},
            "ppo": {"iterations": 2, "missing_eos_penalty": 0.0},
            "guards": {"calibration_samples": 8},
            "run": {"output_dir": str(tmp_path / "run"), "log_every_steps": 1},
        }
    )


def test_a_policy_trains_on_an_ensemble_beside_a_single_model(recipe, ensemble, saved_reward, tmp_path):
    directory = RunDirectory(recipe.run.output_dir)
    directory.prepare(recipe, resume=False)
    before = {path: path.read_bytes() for path in ensemble.rglob("*.safetensors")}
    run(recipe, directory, False)
    files = sorted((tmp_path / "run" / "samples").glob("rollouts-*.jsonl"))
    samples = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert len(samples) >= 8
    prompts = [image_prompt("Describe the image.")] * len(samples)
    images = [(Path(sample["images"][0]),) for sample in samples]
    texts = [sample["completion"] for sample in samples]
    for name, path in (("learned", ensemble), ("single", saved_reward)):
        alone = LearnedReward.load(path).score(prompts, images, texts)
        np.testing.assert_allclose([sample["parts"][name] for sample in samples], alone, atol=1e-4)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = [line["reward/learned"] for line in lines if "reward/learned" in line]
    assert len(logged) == 2
    assert len(set(logged)) == 2
    assert {path: path.read_bytes() for path in before} == before
    written = load_file(str(tmp_path / "run" / "final" / "adapter_model.safetensors"))
    assert written
    assert not [name for name in written if "reward" in name]


def test_every_reward_model_is_an_adapter_on_the_policys_base(recipe, ensemble, saved_reward, pairs):
    policy = load_vlm(recipe.model, trainable=True)
    found = [load_learned(policy, recipe, str(path)) for path in (ensemble, saved_reward, saved_reward)]
    assert isinstance(found[0], EnsembleReward)
    assert roles_of(policy.model) == ["default", "reward_0", "reward_1", "reward", "reward_2"]
    columns = [p.prompt for p in pairs], [p.images for p in pairs], [p.chosen for p in pairs]
    for attached, path in zip(found, (ensemble, saved_reward, saved_reward), strict=True):
        assert attached.model.vlm is policy
        alone = LearnedReward.load(path)
        np.testing.assert_allclose(attached.score(*columns), alone.score(*columns), atol=1e-4)


def test_an_ensemble_at_another_precision_gets_a_base_of_its_own(recipe, ensemble, pairs):
    quantised = recipe.model.model_copy(update={"quantization": QuantizationSpec()})
    other = RlRecipe.model_validate({**recipe.model_dump(), "model": quantised.model_dump()})
    policy = load_vlm(other.model, trainable=True)
    found = load_learned(policy, other, str(ensemble))
    assert isinstance(found, EnsembleReward)
    assert roles_of(policy.model) == ["default"]
    assert all(member.model.vlm is not policy for member in found.members)


@pytest.fixture
def other_base(bases, new_reward, tmp_path):
    """A reward model on another family than the policy's."""
    model, spec = new_reward(bases["qwen2_5_vl"], seed=5)
    folder = tmp_path / "other-base"
    folder.mkdir()
    save_reward_model(model, folder, describe(model.vlm, spec))
    return folder


def copies(weights):
    """How many live tensors, each storage once, hold the same numbers as each of ``weights``."""
    gc.collect()
    live = {}
    for item in gc.get_objects():
        if issubclass(type(item), torch.Tensor) and item.device.type == "cpu" and item.ndim == 2:
            live[item.data_ptr()] = item.detach()
    return [sum(torch.equal(weight, other) for other in live.values()) for weight in weights]


def test_a_policy_trains_on_a_reward_model_with_a_base_of_its_own(recipe, other_base, tmp_path):
    values = recipe.model_dump()
    values["rewards"] = [{"term": "learned", "model": str(other_base)}]
    values["run"]["eval_every_steps"] = 1
    recipe = RlRecipe.model_validate(values)
    directory = RunDirectory(recipe.run.output_dir)
    directory.prepare(recipe, resume=False)
    policy = load_vlm(recipe.model, trainable=True)
    base = [item for item in policy.model.get_base_model().parameters() if item.ndim == 2]
    base = [item.detach() for item in base if not item.requires_grad and item.numel() > 1000]
    before = copies(base)
    learned = load_learned(policy, recipe, str(other_base))
    reward = build_reward(recipe.rewards, references={}, learned={str(other_base): learned})
    rows, _ = load_parts(recipe.data, load_prompt_rows)
    evaluate = held_out_evaluation(reward, rows, recipe)
    trainer = PpoTrainer(policy, reward, rows, rows, recipe, directory, evaluate)
    adapter = [item.detach().clone() for _, item in role_parameters(policy.model, "default")]
    trainer.train()
    directory.release()
    # It trains, on the scores that the reward model gives alone.
    moved = [item for _, item in role_parameters(policy.model, "default")]
    assert any(not torch.equal(one, other) for one, other in zip(adapter, moved, strict=True))
    lines = (directory.samples / "rollouts-000002.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    alone = LearnedReward.load(other_base).score(
        [image_prompt("Describe the image.")] * len(samples),
        [(Path(sample["images"][0]),) for sample in samples],
        [sample["completion"] for sample in samples],
    )
    np.testing.assert_allclose([sample["parts"]["learned"] for sample in samples], alone, atol=1e-4)
    assert len({round(score, 3) for score in alone}) > 1
    # The policy's base is there once, the other model beside it, and both are accounted for.
    assert roles_of(policy.model) == ["default", "ref"]
    assert len(base) > 10
    assert copies(base) == before
    parts = memory_by_part(trainer.engine, reward)
    assert parts["base"] == memory_by_part(trainer.engine)["base"]
    assert parts["reward model learned"] == sum(item.nbytes for item in learned.model.parameters())


def test_a_reward_model_on_the_policys_base_is_no_part_beside_it(recipe, saved_reward):
    policy = load_vlm(recipe.model, trainable=True)
    learned = load_learned(policy, recipe, str(saved_reward))
    reward = build_reward(recipe.rewards[1:], references={}, learned={str(saved_reward): learned})
    directory = RunDirectory(recipe.run.output_dir)
    rows, _ = load_parts(recipe.data, load_prompt_rows)
    parts = memory_by_part(PpoTrainer(policy, reward, rows, rows, recipe, directory).engine, reward)
    assert parts["adapter reward"] > 0
    head = sum(item.nbytes for item in learned.model.head.parameters())
    assert parts["reward model single"] == head


def test_learned_rewards_on_the_policys_base_use_its_picture_features(
    recipe, ensemble, saved_reward, monkeypatch
):
    """The tower sees each picture of an iteration once, and scores do not depend on what was scored before."""
    policy = load_vlm(recipe.model, trainable=True)
    learned = {str(path): load_learned(policy, recipe, str(path)) for path in (ensemble, saved_reward)}
    reward = build_reward(recipe.rewards, references={}, learned=learned)
    rows, _ = load_parts(recipe.data, load_prompt_rows)
    trainer = PpoTrainer(policy, reward, rows, rows, recipe, RunDirectory(recipe.run.output_dir))
    pictures = []
    tower = trunk(policy.model).get_image_features

    def counted(**inputs):
        output = tower(**inputs)
        pictures.append(len(output.pooler_output))
        return output

    monkeypatch.setattr(trunk(policy.model), "get_image_features", counted)
    batches = []
    rollout = trainer.worker.collect(rows, seed=3, sampled=batches.append)
    lent, again = reward(batches[0]), reward(batches[0])
    assert sum(pictures) == len({row.images for row in rows})
    assert lent.scores.tobytes() == again.scores.tobytes()
    alone = reward(rollout.reward_batch())  # without the features: the reward models ask the tower themselves
    assert sum(pictures) > len({row.images for row in rows})
    np.testing.assert_allclose(lent.scores, alone.scores, atol=1e-5)
    grey = learned[str(saved_reward)].blanked()(batches[0]).scores
    assert not np.allclose(grey, lent.parts["single"], atol=1e-4)


def test_a_resumed_run_on_learned_rewards_ends_at_the_same_bits(recipe, tmp_path):
    """What a reward model scored before the interruption, and what it kept of it, leaves no trace in the rest."""
    values = recipe.model_dump()
    values["rollout"]["prompts_per_iteration"] = 4
    values["ppo"]["iterations"] = 4
    values["run"] = {**values["run"], "save_every_steps": 1, "save_total_limit": 9}
    ends = []
    for name in ("whole", "resumed"):
        values["run"]["output_dir"] = str(tmp_path / name)
        again = RlRecipe.model_validate(values)
        resume = name == "resumed"
        if resume:
            shutil.copytree(tmp_path / "whole", tmp_path / name)
            for left in ("final", "checkpoint-3"):
                shutil.rmtree(tmp_path / name / left)
        directory = RunDirectory(again.run.output_dir)
        directory.prepare(again, resume=resume)
        run(again, directory, resume)
        directory.release()
        ends.append(load_file(str(tmp_path / name / "final" / "adapter_model.safetensors")))
    assert (tmp_path / "resumed" / "checkpoint-3").is_dir()
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "resumed")]
    for one, other in zip(*(map(json.loads, part) for part in lines), strict=True):
        assert {k: v for k, v in one.items() if "time/" not in k} == {
            k: v for k, v in other.items() if "time/" not in k
        }


def test_an_adapter_of_more_than_the_language_model_gets_a_base_of_its_own(recipe, saved_reward, tmp_path):
    """The policy's picture features would be those of another projector than it was trained with."""
    wider = tmp_path / "wider"
    shutil.copytree(saved_reward, wider)
    weights = load_file(str(wider / "adapter_model.safetensors"))
    name = "base_model.model.model.multi_modal_projector.linear_1.lora_A.weight"
    save_file({**weights, name: torch.zeros(4, 64)}, str(wider / "adapter_model.safetensors"))
    policy = load_vlm(recipe.model, trainable=True)
    with pytest.raises(
        CheckpointError, match=r"more than the language model, such as .*multi_modal_projector"
    ):
        LearnedReward.attach(policy, recipe.model, wider)
    assert roles_of(policy.model) == ["default"]
