"""Ensembles: what the score is, that members share a base, training, and what their spread says."""

import json
import shutil

import numpy as np
import pytest

from reward_models.checkpoint import describe, save_reward_model
from reward_models.config import CONFIG_FILE, read_config
from reward_models.ensemble import EnsembleReward
from reward_models.ensemble_stage import bootstrap, spread, train_ensemble
from reward_models.evaluation import EVALUATION_FILE, evaluate_pairs, score_rows
from reward_models.scorer import LearnedReward
from toolkit.config.schema import EnsembleSpec, LoraSpec, ModelSpec, QuantizationSpec
from toolkit.errors import RecipeError
from toolkit.models.loading import load_vlm
from toolkit.models.roles import active_role
from toolkit.records import PromptRow
from toolkit.rewards.base import RewardBatch
from toolkit.runs.directory import RunDirectory


def columns(pairs):
    return [p.prompt for p in pairs], [p.images for p in pairs], [p.chosen for p in pairs]


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "4-bit"])
def ensemble(request, bases, new_reward, tmp_path_factory):
    """Three random members on one base; folder, how the base is held, and the members' folders."""
    folder = tmp_path_factory.mktemp("ensemble")
    quantization = QuantizationSpec() if request.param else None
    for index in range(3):
        model, spec = new_reward(bases["llava"], seed=index, quantization=quantization)
        member = folder / f"member-{index}"
        member.mkdir()
        config = describe(model.vlm, spec, score_mean=0.1 * index)
        save_reward_model(model, member, config)
    whole = config.model_copy(update={"members": 3, "std_penalty": 0.5})
    (folder / CONFIG_FILE).write_text(whole.model_dump_json())
    return folder, quantization


def test_the_score_is_the_mean_less_the_disagreement(ensemble, pairs):
    folder, _ = ensemble
    reward = LearnedReward.load(folder)
    assert isinstance(reward, EnsembleReward)
    alone = [LearnedReward.load(folder / f"member-{index}") for index in range(3)]
    scores = np.stack([m.score(*columns(pairs)) - m.config.score_mean for m in alone])
    np.testing.assert_allclose(reward.member_scores(*columns(pairs)), scores, atol=1e-4)
    expected = scores.mean(axis=0) - 0.5 * scores.std(axis=0)
    np.testing.assert_allclose(reward.score(*columns(pairs)), expected, atol=1e-4)
    rows = [
        PromptRow(sample_id=p.sample_id, task=p.task, prompt=p.prompt, images=p.images, image_id=p.sample_id)
        for p in pairs
    ]
    output = reward(RewardBatch(rows, [p.chosen for p in pairs], [True] * len(rows), [3] * len(rows)))
    np.testing.assert_allclose(output.scores, expected, atol=1e-4)
    np.testing.assert_allclose(output.parts["std"], scores.std(axis=0), atol=1e-4)


def test_members_are_adapters_on_one_base_alone_or_a_policys(ensemble, bases, pairs):
    folder, quantization = ensemble
    reward = EnsembleReward.load(folder)
    assert len({id(member.model.vlm) for member in reward.members}) == 1
    assert len({id(member.encoder) for member in reward.members}) == 1
    spec = ModelSpec(id=str(bases["llava"]), lora=LoraSpec(rank=8, alpha=8), quantization=quantization)
    policy = load_vlm(spec, trainable=True)
    trainable = [name for name, p in policy.model.named_parameters() if p.requires_grad]
    shared = LearnedReward.attach(policy, spec, folder)
    np.testing.assert_allclose(shared.score(*columns(pairs)), reward.score(*columns(pairs)), atol=1e-4)
    assert active_role(policy.model) == "default"
    assert [name for name, p in policy.model.named_parameters() if p.requires_grad] == trainable


def test_it_is_evaluated_as_one_model(ensemble, pairs):
    reward = LearnedReward.load(ensemble[0])
    report = evaluate_pairs(reward, pairs)
    chosen, rejected = score_rows(reward, pairs)
    assert report.accuracy == np.mean(chosen > rejected)
    assert not np.allclose(score_rows(reward.blanked(), pairs)[0], chosen)


def test_a_missing_member_is_named(ensemble, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(ensemble[0], folder)
    shutil.rmtree(folder / "member-2")
    with pytest.raises(Exception, match=r"member-2 is no reward model"):
        LearnedReward.load(folder)


def test_encodings_of_another_base_are_not_shared(saved_reward):
    first, second = LearnedReward.load(saved_reward), LearnedReward.load(saved_reward)
    with pytest.raises(ValueError, match="one base"):
        second.share_encoder(first)


def test_training_writes_an_ensemble_that_loads_and_resumes(bases, pair_folder, new_recipe, tmp_path):
    recipe = new_recipe(
        bases["llava"],
        pair_folder,
        tmp_path / "run",
        steps=2,
        ensemble=EnsembleSpec(members=2, std_penalty=0.3),
    )
    directory = RunDirectory(recipe.run.output_dir)
    directory.path.mkdir()
    train_ensemble(recipe, directory, False)
    config = read_config(directory.final)
    assert (config.members, config.std_penalty) == (2, 0.3)
    figures = json.loads((directory.path / EVALUATION_FILE).read_text())
    assert figures["accuracy"] == pytest.approx(config.held_out_accuracy)
    assert len(figures["ensemble"]["members"]) == 2
    assert set(figures["ensemble"]["std"]) == {"own", "negative", "noise"}
    heads = [(directory.final / f"member-{k}" / "reward_head.safetensors").read_bytes() for k in range(2)]
    assert heads[0] != heads[1]

    shutil.rmtree(directory.final)
    shutil.rmtree(directory.path / "member-1" / "final")
    kept = (directory.path / "member-0" / "final" / CONFIG_FILE).stat().st_mtime_ns
    train_ensemble(recipe, directory, True)
    assert (directory.path / "member-0" / "final" / CONFIG_FILE).stat().st_mtime_ns == kept
    again = [(directory.final / f"member-{k}" / "reward_head.safetensors").read_bytes() for k in range(2)]
    assert again == heads


@pytest.mark.parametrize("name", ["DEEPSPEED", "FSDP"])
def test_launchers_that_set_up_one_model_are_refused_before_anything_is_read(
    name, bases, new_recipe, tmp_path, monkeypatch
):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    recipe = new_recipe(bases["llava"], tmp_path, tmp_path / "run", ensemble=EnsembleSpec(members=2))
    with pytest.raises(RecipeError, match=f"ensemble: is trained without {name}, (.|\n)*--launch ddp"):
        train_ensemble(recipe, RunDirectory(recipe.run.output_dir), False)
    assert not (tmp_path / "run").exists()


def test_resamples_draw_with_replacement_and_differ_by_seed():
    rows = list(range(1000))
    first, second = bootstrap(rows, 0), bootstrap(rows, 1)
    assert len(first) == 1000
    assert 580 < len(set(first)) < 680  # 1 - 1/e of them
    assert first != second
    assert bootstrap(rows, 0) == first


def test_spread_is_that_of_the_members(ensemble, pairs):
    reward = EnsembleReward.load(ensemble[0])
    found = spread(reward, pairs)
    assert found["own"] == pytest.approx(reward.member_scores(*columns(pairs)).std(axis=0).mean())
    assert len({round(value, 6) for value in found.values()}) == 3
