"""A checkpoint on another base, precision, template or processor: refused, and measured anew on request."""

import json
import shutil

import numpy as np
import pytest
import torch

from reward_models.__main__ import main
from reward_models.calibration import Precision, recalibrate
from reward_models.checkpoint import describe, save_reward_model
from reward_models.config import CONFIG_FILE, read_config
from reward_models.ensemble import EnsembleReward
from reward_models.evaluation import score_rows
from reward_models.measures import accuracy
from reward_models.scorer import LearnedReward
from toolkit.config.schema import LoraSpec, ModelSpec, QuantizationSpec
from toolkit.errors import CheckpointError, DataError, RunFailed
from toolkit.models.loading import load_vlm


def edited(saved, tmp_path, **values):
    folder = tmp_path / "edited"
    shutil.copytree(saved, folder)
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def agrees(config, reward, pairs):
    chosen, rejected = score_rows(reward, pairs)
    both = np.concatenate([chosen, rejected])
    assert config.score_mean == pytest.approx(both.mean(), abs=1e-6)
    assert config.score_std == pytest.approx(both.std(), abs=1e-6)
    assert config.held_out_accuracy == accuracy(chosen, rejected)
    assert config.held_out_pairs == len(pairs)


def test_at_another_precision_it_attaches_to_a_policy_that_it_was_refused_to(
    saved_reward, bases, pairs, tmp_path
):
    spec = ModelSpec(id=str(bases["llava"]), lora=LoraSpec(rank=4, alpha=8), quantization=QuantizationSpec())
    policy = load_vlm(spec, trainable=True)
    with pytest.raises(CheckpointError, match=r"precision: (.|\n)*reward_models calibrate"):
        LearnedReward.attach(policy, spec, saved_reward)
    before = (saved_reward / CONFIG_FILE).read_bytes()
    found = recalibrate(saved_reward, pairs, tmp_path / "out", precision=Precision(bits=4))
    assert found.reasons == [
        "precision: trained with float32, found 4-bit nf4 with float32 compute (float32)"
    ]
    assert found.after.recalibrated == found.reasons
    assert (saved_reward / CONFIG_FILE).read_bytes() == before
    config = read_config(tmp_path / "out")
    assert config == found.after
    alone = LearnedReward.load(tmp_path / "out")
    agrees(config, alone, pairs)
    shared = LearnedReward.attach(policy, spec, tmp_path / "out")
    np.testing.assert_allclose(score_rows(shared, pairs), score_rows(alone, pairs), atol=1e-4)
    assert not np.allclose(score_rows(alone, pairs), score_rows(LearnedReward.load(saved_reward), pairs))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"chat_template_sha256": "0" * 64}, "chat template"),
        ({"image_size": {"height": 99, "width": 99}}, "image size"),
        ({"base_weights": {"model.safetensors": "0" * 64}}, "base model"),
    ],
)
def test_what_loading_refuses_loads_after_it_was_measured(values, reason, saved_reward, pairs, tmp_path):
    folder = edited(saved_reward, tmp_path, **values)
    with pytest.raises(CheckpointError, match=reason):
        LearnedReward.load(folder)
    found = recalibrate(folder, pairs, tmp_path / "out")
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith(reason)
    agrees(read_config(tmp_path / "out"), LearnedReward.load(tmp_path / "out"), pairs)


def test_another_base_is_named_and_its_scores_are_measured(saved_reward, bases, pairs, tmp_path, caplog):
    spec = ModelSpec(id=str(bases["llava"]))
    other = load_vlm(spec, trainable=False)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(1.1)
    other.model.save_pretrained(tmp_path / "other")
    other.processor.save_pretrained(tmp_path / "other")
    found = recalibrate(saved_reward, pairs, tmp_path / "out", base=str(tmp_path / "other"))
    assert found.reasons[0].startswith("base model: trained on ")
    assert found.after.base_id == str(tmp_path / "other")
    reward = LearnedReward.load(tmp_path / "out")
    agrees(found.after, reward, pairs)
    assert not np.allclose(score_rows(reward, pairs), score_rows(LearnedReward.load(saved_reward), pairs))
    assert ("no better than chance" in caplog.text) == (found.after.held_out_accuracy < 0.5 + 1 / 12**0.5)


def test_of_an_ensemble_every_member_and_the_whole_are_measured(bases, new_reward, pairs, tmp_path):
    for index in range(2):
        model, spec = new_reward(bases["llava"], seed=index)
        (tmp_path / f"whole/member-{index}").mkdir(parents=True)
        config = describe(model.vlm, spec, score_mean=9.0)
        save_reward_model(model, tmp_path / f"whole/member-{index}", config)
    whole = config.model_copy(update={"members": 2, "std_penalty": 0.7, "chat_template_sha256": "x"})
    (tmp_path / "whole" / CONFIG_FILE).write_text(whole.model_dump_json())
    found = recalibrate(tmp_path / "whole", pairs, tmp_path / "out", precision=Precision(bits=8))
    assert (found.after.members, found.after.std_penalty) == (2, 0.7)
    reward = LearnedReward.load(tmp_path / "out")
    assert isinstance(reward, EnsembleReward)
    assert reward.config.quantization.bits == 8
    agrees(reward.config, reward, pairs)
    for member in reward.members:
        agrees(member.config, member, pairs)


def test_nothing_is_written_where_it_cannot_be_measured(saved_reward, pairs, tmp_path):
    with pytest.raises(DataError, match="at least one pair"):
        recalibrate(saved_reward, [], tmp_path / "out")
    with pytest.raises(CheckpointError, match="exists"):
        recalibrate(saved_reward, pairs, tmp_path)
    folder = edited(saved_reward, tmp_path, full_weights=True)
    with pytest.raises(CheckpointError, match="no base to replace"):
        recalibrate(folder, pairs, tmp_path / "out", base="other")
    assert not (tmp_path / "out").exists()


def test_scores_that_are_no_numbers_leave_no_checkpoint(saved_reward, pairs, tmp_path, monkeypatch):
    def broken(self, prompts, images, completions, **options):
        return np.full(len(completions), np.nan)

    monkeypatch.setattr(LearnedReward, "score", broken)
    with pytest.raises(RunFailed, match="24 of 24 scores are no finite numbers"):
        recalibrate(saved_reward, pairs, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_differs_and_what_was_measured(saved_reward, pair_folder, tmp_path, capsys):
    words = ["calibrate", str(saved_reward), "--pairs", str(pair_folder / "val.jsonl"), "--out"]
    assert main([*words, str(tmp_path / "a"), "--bits", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["before"] == {
        "score_mean": 0.5, "score_std": 2.0, "held_out_accuracy": None, "held_out_pairs": 0
    }  # fmt: skip
    assert found["after"]["held_out_pairs"] == 24
    assert found["reasons"][0].startswith("precision")
    assert main([*words, str(tmp_path / "b")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "differs: in nothing"
    assert "held_out_accuracy: not measured → " in lines[3]
    assert main([*words, str(tmp_path / "b")]) == 2
    assert "exists" in capsys.readouterr().err
