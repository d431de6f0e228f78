"""The reward stage end to end on tiny models: learns what only the picture decides, resumes exactly, stops early."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import reward_models.stage as stage
from reward_models.best import best_evaluation
from reward_models.config import HEAD_FILE, read_config
from reward_models.evaluation import evaluate_pairs
from reward_models.scorer import LearnedReward
from reward_models.stage import EVALUATION_FILE, train_reward
from toolkit.cli.stage import run_stage
from toolkit.config.schema import ModelSpec, QuantizationSpec, RewardLossSpec
from toolkit.errors import Interrupted, RecipeError
from toolkit.runs.directory import RunDirectory


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it runs."""


def train(recipe, *, resume=False):
    directory = RunDirectory(recipe.run.output_dir)
    directory.path.mkdir(parents=True, exist_ok=True)
    train_reward(recipe, directory, resume)
    return directory


def weights_of(folder):
    return {**load_file(str(folder / "adapter_model.safetensors")), **load_file(str(folder / HEAD_FILE))}


def lines_of(directory):
    return directory.metrics.path.read_text().splitlines()


def killed_after(monkeypatch, step):
    """The next run is killed at the start of the step after ``step``."""
    from transformers import TrainerCallback

    class Kill(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise Killed

    original = stage.fit

    def fit(trainer, **arguments):
        trainer.add_callback(Kill())
        original(trainer, **arguments)

    monkeypatch.setattr(stage, "fit", fit)


def test_a_run_writes_a_reward_model_with_its_figures(bases, pair_folder, new_recipe, tmp_path):
    recipe = new_recipe(bases["llava"], pair_folder, tmp_path / "run")
    directory = run_stage(recipe, train_reward)
    config = read_config(directory.final)
    assert config.held_out_pairs == 24
    assert 0 <= config.held_out_accuracy <= 1
    assert config.score_std > 0
    report = json.loads((directory.path / EVALUATION_FILE).read_text())
    assert report["accuracy"] == pytest.approx(config.held_out_accuracy)
    assert report["by_source"].keys() == {"easy", "hard"}
    lines = [json.loads(line) for line in lines_of(directory)]
    assert {"loss", "accuracy", "margin"} <= lines[0].keys()
    evaluated = [line for line in lines if "eval_accuracy" in line]
    assert [line["step"] for line in evaluated] == [2, 4, 6]
    assert {"eval_accuracy_easy", "eval_accuracy_hard", "eval_margin", "eval_loss"} <= evaluated[0].keys()
    assert not [path for path in directory.final.rglob("*") if path.suffix in (".bin", ".pt", ".pth")]
    card = (directory.final / "README.md").read_text()
    assert "| `loss.kind` | `bradley_terry` |" in card
    assert "- train: rows from `train.jsonl`" in card
    assert str(tmp_path) not in card


def test_the_final_weights_are_those_of_the_best_evaluation(bases, pair_folder, new_recipe, tmp_path):
    directory = train(new_recipe(bases["llava"], pair_folder, tmp_path))
    evaluated = [line for line in map(json.loads, lines_of(directory)) if "eval_accuracy" in line]
    step, _ = best_evaluation(evaluated)
    best = next(line for line in evaluated if line["step"] == step)
    assert read_config(directory.final).held_out_accuracy == pytest.approx(best["eval_accuracy"])


@pytest.mark.slow
def test_it_learns_what_only_the_picture_decides(bases, pair_folder, new_recipe, tmp_path):
    options = {"max_steps": 60, "per_device_train_batch_size": 12, "learning_rate": 5e-3}
    run = {"eval_every_steps": 20, "log_every_steps": 20, "save_every_steps": None}
    directory = train(new_recipe(bases["llava"], pair_folder, tmp_path / "eyes", trainer=options, run=run))
    report = json.loads((directory.path / EVALUATION_FILE).read_text())
    assert report["accuracy"] > 0.9
    assert report["blanked_accuracy"] < 0.7
    assert report["swapped_accuracy"] < 0.8
    assert report["swap_gap"] > 0.5
    blind = train(
        new_recipe(
            bases["llava"], pair_folder, tmp_path / "blind", trainer=options, run=run, blank_images=True
        )
    )
    assert read_config(blind.final).blank_images
    assert read_config(blind.final).held_out_accuracy < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("quantised", [False, True])
def test_killed_and_resumed_equals_uninterrupted(
    quantised, bases, pair_folder, new_recipe, tmp_path, monkeypatch
):
    quantization = QuantizationSpec() if quantised else None
    from toolkit.config.schema import LoraSpec

    model = ModelSpec(id=str(bases["llava"]), lora=LoraSpec(rank=4, alpha=8), quantization=quantization)
    whole = train(new_recipe(bases["llava"], pair_folder, tmp_path / "whole", model=model, steps=7))
    recipe = new_recipe(bases["llava"], pair_folder, tmp_path / "cut", model=model, steps=7)
    with monkeypatch.context() as patch:
        killed_after(patch, 5)
        with pytest.raises(Killed):
            train(recipe)
    cut = train(recipe, resume=True)
    assert lines_of(cut) == lines_of(whole)
    expected = weights_of(whole.final)
    found = weights_of(cut.final)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert read_config(cut.final) == read_config(whole.final)


def test_a_signal_writes_a_checkpoint_and_ends_the_run(bases, pair_folder, new_recipe, tmp_path):
    recipe = new_recipe(bases["llava"], pair_folder, tmp_path, run={"save_every_steps": None})
    directory = RunDirectory(recipe.run.output_dir)
    directory.stop.request()
    with pytest.raises(Interrupted, match="after step 1 of 6") as caught:
        train_reward(recipe, directory, False)
    assert caught.value.exit_code == 143
    assert (tmp_path / "checkpoint-1" / "trainer_state.json").is_file()
    assert not directory.final.exists()
    assert not (tmp_path / ".trainer").exists()


def test_training_stops_when_no_evaluation_is_better(bases, pair_folder, new_recipe, tmp_path):
    recipe = new_recipe(
        bases["llava"],
        pair_folder,
        tmp_path,
        steps=40,
        early_stopping_patience=2,
        trainer={"learning_rate": 1e-9, "warmup_steps": 0},
        head_learning_rate=1e-9,
        run={"eval_every_steps": 1},
    )
    directory = train(recipe)
    assert json.loads(lines_of(directory)[-1])["step"] < 10


def test_full_weights_train_without_an_adapter(bases, pair_folder, new_recipe, tmp_path, pairs):
    model = ModelSpec(id=str(bases["llava"]))
    directory = train(new_recipe(bases["llava"], pair_folder, tmp_path, model=model, steps=2))
    assert (directory.final / "model.safetensors").is_file()
    reward = LearnedReward.load(directory.final)
    assert evaluate_pairs(reward, pairs).n == len(pairs)


def test_options_reach_the_optimizer_and_the_loss(bases, pair_folder, new_recipe, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(stage, "fit", lambda trainer, **k: seen.update(trainer=trainer, k=k))
    monkeypatch.setattr(stage, "_finish", lambda *a, **k: None)
    recipe = new_recipe(
        bases["llava"],
        pair_folder,
        tmp_path,
        head_learning_rate=0.125,
        loss=RewardLossSpec(centring=0.5, label_smoothing=0.1),
        trainer={"weight_decay": 0.25},
    )
    train_reward(recipe, RunDirectory(tmp_path), False)
    body, head = seen["trainer"].create_optimizer().param_groups
    assert (body["lr"], body["weight_decay"]) == (2e-3, 0.25)
    assert (head["lr"], head["weight_decay"]) == (0.125, 0.0)
    assert len(head["params"]) == 2
    assert (seen["trainer"].loss.centring, seen["trainer"].loss.label_smoothing) == (0.5, 0.1)
    assert seen["k"]["run"].save_every_steps == 2


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("load_best_model_at_end", True, "keeps the best evaluation itself"),
        ("output_dir", "x", "set run.output_dir instead"),
        ("no_such_option", 1, "no_such_option"),
    ],
)
def test_wrong_trainer_keys_are_refused(key, value, message, bases, pair_folder, new_recipe, tmp_path):
    recipe = new_recipe(bases["llava"], pair_folder, tmp_path, trainer={key: value})
    with pytest.raises(RecipeError, match=message):
        train_reward(recipe, RunDirectory(tmp_path), False)


def test_two_identical_runs_give_identical_scores(bases, pair_folder, new_recipe, tmp_path):
    runs = [train(new_recipe(bases["llava"], pair_folder, tmp_path / name, steps=3)) for name in "ab"]
    first, second = (weights_of(run.final) for run in runs)
    assert all(np.array_equal(first[name].numpy(), second[name].numpy()) for name in first)
