"""``LearnedReward``: standalone, on a shared base, in batches, and from the command line."""

import dataclasses
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from reward_models.__main__ import main
from reward_models.checkpoint import describe, save_reward_model
from reward_models.evaluation import score_rows
from reward_models.invariance import invariance
from reward_models.scorer import LearnedReward
from toolkit.config.schema import LoraSpec, ModelSpec, QuantizationSpec
from toolkit.errors import CheckpointError
from toolkit.models.encoding import collate
from toolkit.models.loading import load_vlm
from toolkit.models.logprobs import completion_logprobs
from toolkit.models.roles import active_role, role_parameters
from toolkit.models.structure import trunk
from toolkit.records import PromptRow
from toolkit.rewards.base import Reward, RewardBatch


def batch_of(pairs, texts):
    rows = [
        PromptRow(sample_id=p.sample_id, task=p.task, prompt=p.prompt, images=p.images, image_id=p.sample_id)
        for p in pairs
    ]
    return RewardBatch(rows, texts, [True] * len(rows), [3] * len(rows))


def test_it_is_a_reward_and_scores_do_not_depend_on_batch_size_or_order(saved_reward, pairs):
    reward = LearnedReward.load(saved_reward)
    assert isinstance(reward, Reward)
    texts = [p.chosen + " really" * (i % 4) for i, p in enumerate(pairs)]
    whole = reward(batch_of(pairs, texts)).scores
    assert whole.shape == (len(pairs),)
    assert whole.dtype == np.float64
    small = LearnedReward(reward.model, reward.config, batch_size=5)(batch_of(pairs, texts)).scores
    back = reward(batch_of(pairs[::-1], texts[::-1])).scores[::-1]
    np.testing.assert_allclose(small, whole, atol=1e-5)
    np.testing.assert_allclose(back, whole, atol=1e-5)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_completions_that_share_a_prompt_score_as_each_alone(family, bases, new_reward, pairs):
    model, spec = new_reward(bases[family])
    reward = LearnedReward(model, describe(model.vlm, spec))
    texts = ["", "red", "a " * 12, "a red picture", *(f"{n} pictures" for n in range(9)), "red"]
    rows = [pairs[i // 2 % 2 * 3] for i in range(len(texts))]
    together = reward.score([r.prompt for r in rows], [r.images for r in rows], texts)
    alone = [reward.score([r.prompt], [r.images], [text])[0] for r, text in zip(rows, texts, strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert len(set(np.round(together, 6))) > 10


def test_each_picture_goes_through_the_tower_once_and_grey_ones_of_a_size_are_one(
    saved_reward, pairs, pictures, tmp_path, monkeypatch
):
    reward = LearnedReward.load(saved_reward)
    seen = []
    tower = trunk(reward.model.model).get_image_features
    monkeypatch.setattr(
        trunk(reward.model.model),
        "get_image_features",
        lambda *args, **inputs: seen.append(len(inputs["pixel_values"])) or tower(*args, **inputs),
    )
    score_rows(reward, pairs)
    score_rows(reward, pairs, images=[row.images for row in pairs[::-1]])
    assert sum(seen) == len({row.images for row in pairs}) == 4
    seen.clear()
    blind = LearnedReward(reward.model, reward.config, blank_images=True)
    Image.new("RGB", (32, 32), (3, 200, 7)).save(tmp_path / "same size.png")  # as the red one
    images = [(path,) for path in (*pictures.values(), tmp_path / "same size.png")]
    rows = [dataclasses.replace(pairs[0], images=source) for source in images]
    chosen, _ = score_rows(blind, rows)
    assert sum(seen) == 4
    assert chosen[0] == chosen[-1]


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("family", ["llava", "idefics3", "qwen2_5_vl"])
def test_on_a_shared_base_it_scores_as_alone_and_leaves_the_policy_as_it_is(
    family, quantised, bases, new_reward, pairs, tmp_path
):
    quantization = QuantizationSpec() if quantised else None
    model, spec = new_reward(bases[family], quantization=quantization)
    save_reward_model(model, tmp_path, describe(model.vlm, spec))
    alone = LearnedReward.load(tmp_path)

    policy_spec = ModelSpec(id=str(bases[family]), lora=LoraSpec(rank=8, alpha=8), quantization=quantization)
    policy = load_vlm(policy_spec, trainable=True)
    with torch.no_grad():
        for _, parameter in role_parameters(policy.model, "default"):
            parameter.add_(0.2)
    trainable = [name for name, p in policy.model.named_parameters() if p.requires_grad]
    before = policy_logprobs(policy, pairs, alone)

    shared = LearnedReward.attach(policy, policy_spec, tmp_path)
    texts = [p.chosen for p in pairs]
    np.testing.assert_allclose(
        shared(batch_of(pairs, texts)).scores,
        alone(batch_of(pairs, texts)).scores,
        atol=1e-4 if quantised else 1e-5,
    )
    policy.model.eval()
    shared(batch_of(pairs[:1], texts[:1]))
    assert not policy.model.training
    policy.model.train()
    shared(batch_of(pairs[:1], texts[:1]))
    assert active_role(policy.model) == "default"
    assert policy.model.training
    assert [name for name, p in policy.model.named_parameters() if p.requires_grad] == trainable
    torch.testing.assert_close(policy_logprobs(policy, pairs, alone), before, atol=0, rtol=0)


def policy_logprobs(policy, pairs, reward):
    prompts = reward.encoder.encode([pairs[0].prompt], [pairs[0].images])
    texts = reward.encoder.completions([pairs[0].chosen])
    with torch.no_grad():
        return completion_logprobs(policy.model, collate(policy, prompts, texts))[0]


def test_a_policy_of_another_precision_is_refused(saved_reward, bases):
    spec = ModelSpec(id=str(bases["llava"]), lora=LoraSpec(rank=4, alpha=8), quantization=QuantizationSpec())
    policy = load_vlm(spec, trainable=True)
    with pytest.raises(CheckpointError, match="precision: trained with float32, found 4-bit nf4"):
        LearnedReward.attach(policy, spec, saved_reward)


def test_scores_that_are_no_numbers_become_nan_and_count_as_failed(saved_reward, pairs):
    reward = LearnedReward.load(saved_reward)
    with torch.no_grad():
        reward.model.head.linear.bias.fill_(torch.inf)
    output = reward(batch_of(pairs, [p.chosen for p in pairs]))
    assert np.isnan(output.scores).all()
    assert output.failed.all()


def test_score_keeps_the_order_and_rank_sorts(saved_reward, pictures, capsys):
    responses = ["a red picture", "a blue picture", "red red red"]
    arguments = [str(saved_reward), "--image", str(pictures["red"]), "--prompt", "Describe the image."]
    for response in responses:
        arguments += ["--response", response]
    assert main(["score", *arguments, "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)["responses"]
    assert [row["response"] for row in scored] == responses
    assert main(["rank", *arguments, "--json"]) == 0
    ranked = json.loads(capsys.readouterr().out)["responses"]
    assert ranked == sorted(scored, key=lambda row: -row["score"])
    assert main(["rank", *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(ranked[0]["response"])


def test_a_wrong_checkpoint_or_picture_ends_with_exit_code_2_and_no_traceback(saved_reward, tmp_path, capsys):
    assert main(["score", str(tmp_path), "--response", "x"]) == 2
    assert "is no reward model" in capsys.readouterr().err
    assert main(["score", str(saved_reward), "--image", str(tmp_path / "no.png"), "--response", "x"]) == 2
    error = capsys.readouterr().err
    assert "no such file" in error
    assert "Traceback" not in error


def test_a_wrong_folder_is_refused_before_torch_is_loaded(tmp_path):
    code = (
        "import sys\nfrom reward_models.__main__ import main\n"
        f"print(main(['score', {str(tmp_path)!r}, '--response', 'x']), 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "2 False"
    assert "is no reward model" in run.stderr


def test_help_is_quick():
    began = time.perf_counter()
    run = subprocess.run([sys.executable, "-m", "reward_models", "--help"], capture_output=True, text=True)
    assert run.returncode == 0
    assert "score" in run.stdout
    code = "import sys, reward_models.__main__; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
    )
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_invariance_measures_what_padding_place_and_packing_change(family, bases, new_reward, pairs):
    model, spec = new_reward(bases[family])
    found = invariance(LearnedReward(model, describe(model.vlm, spec)), pairs)
    assert found.keys() == {"batch_right_padded", "batch_left_padded", "other_position", "packed"}
    assert all(0 <= value < 1e-5 for value in found.values())


def test_a_model_that_reads_the_padding_is_found_out(saved_reward, pairs, monkeypatch):
    reward = LearnedReward.load(saved_reward)
    honest = reward.model.forward

    def careless(batch, ends=None):
        return honest(batch, ends) + 0.01 * batch.inputs["input_ids"].shape[1]

    monkeypatch.setattr(reward.model, "forward", careless)
    texts = [dataclasses.replace(row, chosen=row.chosen * (1 + i % 3)) for i, row in enumerate(pairs)]
    assert invariance(reward, texts)["batch_right_padded"] > 0.01
