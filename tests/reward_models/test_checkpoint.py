"""What is written can be read, gives the same scores in another process, and refuses what does not fit."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from reward_models.checkpoint import describe, load_reward_model, save_reward_model
from reward_models.config import CONFIG_FILE, HEAD_FILE, mismatches, read_config
from reward_models.scorer import LearnedReward
from toolkit.config.schema import QuantizationSpec
from toolkit.errors import CheckpointError

SCORE_ELSEWHERE = """
import json, sys
from pathlib import Path
from reward_models.scorer import LearnedReward
from toolkit.records import image_prompt
reward = LearnedReward.load(sys.argv[1])
rows = json.loads(sys.stdin.read())
prompt = image_prompt("Describe the image.")
scores = reward.score([prompt] * len(rows), [(Path(r[0]),) for r in rows], [r[1] for r in rows])
print(json.dumps(scores.tolist()))
"""


def scored(reward, pairs):
    return reward.score([p.prompt for p in pairs], [p.images for p in pairs], [p.chosen for p in pairs])


def copy_of(saved, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    return folder


def edit_config(folder, **values):
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llava", "idefics3", "qwen2_5_vl"])
def test_reload_in_a_new_process_gives_the_same_scores(family, bases, new_reward, pairs, tmp_path):
    model, spec = new_reward(bases[family])
    config = describe(model.vlm, spec)
    save_reward_model(model, tmp_path, config)
    here = scored(LearnedReward(model, config), pairs)
    rows = json.dumps([[str(row.images[0]), row.chosen] for row in pairs])
    run = subprocess.run(
        [sys.executable, "-c", SCORE_ELSEWHERE, str(tmp_path)], input=rows, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    np.testing.assert_allclose(json.loads(run.stdout.splitlines()[-1]), here, atol=1e-6, rtol=0)


def test_reload_in_this_process_gives_the_same_scores_and_configuration(
    saved_reward, bases, new_reward, pairs
):
    model, spec = new_reward(bases["llava"])
    loaded, config = load_reward_model(saved_reward)
    assert config.score_mean == 0.5
    assert config.score_std == 2.0
    assert mismatches(config, describe(model.vlm, spec)) == []
    np.testing.assert_allclose(
        scored(LearnedReward(loaded, config), pairs), scored(LearnedReward(model, config), pairs), atol=1e-6
    )
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_saved_reward_model_is_adapter_head_configuration_and_processor_without_pickle(saved_reward):
    names = {path.name for path in saved_reward.iterdir()}
    assert {
        HEAD_FILE,
        CONFIG_FILE,
        "adapter_model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
    } <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]


@pytest.mark.parametrize("missing", [HEAD_FILE, CONFIG_FILE])
def test_a_checkpoint_without_head_or_configuration_is_refused(missing, saved_reward, tmp_path):
    folder = copy_of(saved_reward, tmp_path)
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=f"is no reward model: {missing} missing") as caught:
        LearnedReward.load(folder)
    assert caught.value.exit_code == 2


def test_a_run_directory_is_refused_with_a_pointer_to_its_final_folder(saved_reward, tmp_path):
    shutil.copytree(saved_reward, tmp_path / "run" / "final")
    with pytest.raises(CheckpointError, match="did you mean .*final"):
        read_config(tmp_path / "run")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"chat_template_sha256": "0" * 64}, "chat template"),
        ({"image_size": {"height": 99, "width": 99}}, "image size: trained with .*99"),
        ({"base_weights": {"model.safetensors": "0" * 64}}, "base model"),
        ({"base_weights": {}, "base_id": "owner/other"}, "base model: trained on owner/other"),
    ],
)
def test_a_base_template_or_image_size_that_differs_is_refused_with_the_reason(
    values, reason, saved_reward, tmp_path
):
    folder = copy_of(saved_reward, tmp_path)
    edit_config(folder, **values)
    with pytest.raises(CheckpointError, match=reason):
        LearnedReward.load(folder)


def test_all_reasons_are_named_at_once(saved_reward):
    config = read_config(saved_reward)
    other = config.model_copy(
        update={
            "chat_template_sha256": "x",
            "image_size": {},
            "base_weights": {"a": "b"},
            "quantization": QuantizationSpec(compute_dtype="bfloat16"),
        }
    )
    reasons = mismatches(config, other)
    assert len(reasons) == 4
    assert "4-bit nf4 with bfloat16 compute" in reasons[-1]


def test_a_moved_base_with_the_same_weights_is_the_same_base(saved_reward):
    config = read_config(saved_reward)
    assert mismatches(config, config.model_copy(update={"base_id": "/elsewhere"})) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda head: {"linear.weight": head["linear.weight"][:, :3].contiguous()},
            "does not fit a model of width 64",
        ),
        (lambda head: {k: torch.full_like(v, torch.nan) for k, v in head.items()}, "NaN or infinite"),
    ],
)
def test_a_head_that_does_not_fit_or_holds_nan_is_refused(damage, message, saved_reward, tmp_path):
    folder = copy_of(saved_reward, tmp_path)
    save_file(damage(load_file(str(folder / HEAD_FILE))), str(folder / HEAD_FILE))
    with pytest.raises(CheckpointError, match=message):
        LearnedReward.load(folder)


@pytest.mark.parametrize("text", ["{", "{}", '{"base_id": 3}'])
def test_a_damaged_configuration_is_refused(text, saved_reward, tmp_path):
    folder = copy_of(saved_reward, tmp_path)
    (folder / CONFIG_FILE).write_text(text)
    with pytest.raises(CheckpointError, match="is damaged"):
        LearnedReward.load(folder)


def test_the_model_card_loads_the_reward_model(saved_reward, tmp_path, monkeypatch):
    shutil.copytree(saved_reward, tmp_path / "final")
    card = (saved_reward / "README.md").read_text()
    assert "More Information Needed" not in card
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32), "red").save("picture.png")
    names = {}
    exec(card.split("```python\n")[1].split("```")[0], names)
    assert np.isfinite(names["scores"]).all()
