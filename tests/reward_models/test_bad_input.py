"""Rows and checkpoints that a reward model cannot learn from or use: each refused with where and why."""

import json
import shutil

import numpy as np
import pytest
import torch

from reward_models.config import HEAD_FILE
from reward_models.data import load_reward_data
from reward_models.evaluation import evaluate_pairs
from reward_models.scorer import LearnedReward
from toolkit.errors import CheckpointError, DataError, RunFailed

IMAGE_TWICE = [
    {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "?"}]}
]


@pytest.fixture
def folder(pair_folder, tmp_path):
    shutil.copytree(pair_folder, tmp_path / "data")
    return tmp_path / "data"


def problems_of(folder, bases, new_recipe, tmp_path):
    with pytest.raises(DataError) as caught:
        load_reward_data(new_recipe(bases["llava"], folder, tmp_path / "run"))
    return caught.value.problems


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"prompt": IMAGE_TWICE}, "2 image placeholders in the prompt for 1 images; expected as many"),
        ({"margin": float("nan")}, "'margin' is 'nan', expected a finite number of at least 0, or no margin"),
        ({"chosen": "a red picture<|im_end|>"}, "holds '<|im_end|>', a mark of a chat template"),
        (
            {"prompt": "USER: <image>\nDescribe.\nASSISTANT:"},
            "a mark of a chat template; give the text alone",
        ),
        ({"images": ["images/gone.png"]}, "no such file"),
        ({"rejected": "a red picture", "chosen": "a red picture"}, "are the same text"),
    ],
)
def test_faulty_rows_are_named_by_line(change, problem, folder, bases, new_recipe, tmp_path):
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    lines[4] |= change
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    [found] = problems_of(folder, bases, new_recipe, tmp_path)
    assert "train.jsonl:5: " in found
    assert problem in found


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_split_is_refused(split, folder, bases, new_recipe, tmp_path):
    (folder / f"{split}.jsonl").write_text("\n")
    [found] = problems_of(folder, bases, new_recipe, tmp_path)
    assert f"{split}.jsonl: no rows; expected at least one" in found


def test_a_checkpoint_without_head_is_refused(saved_reward, tmp_path):
    shutil.copytree(saved_reward, tmp_path / "copy")
    (tmp_path / "copy" / HEAD_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"is no reward model: reward_head.safetensors missing"):
        LearnedReward.load(tmp_path / "copy")


def test_scores_that_are_nan_are_counted_masked_and_stop_above_one_percent(saved_reward, pairs, monkeypatch):
    reward = LearnedReward.load(saved_reward)
    score = reward.score

    def sometimes(prompts, images, completions, **options):
        scores = score(prompts, images, completions, **options)
        scores[[text == "broken" for text in completions]] = np.nan
        return scores

    monkeypatch.setattr(reward, "score", sometimes)
    many = [pairs[index % len(pairs)] for index in range(200)]
    broken = type(pairs[0])(**{**{n: getattr(pairs[0], n) for n in pairs[0].__slots__}, "chosen": "broken"})
    report = evaluate_pairs(reward, [*many, broken, broken])
    assert (report.n, report.failed) == (200, 2)
    assert report.accuracy == evaluate_pairs(reward, many).accuracy
    with pytest.raises(RunFailed, match="3 of 203 pairs have a score that is no finite number"):
        evaluate_pairs(reward, [*many, broken, broken, broken])
    with torch.no_grad():
        reward.model.head.linear.weight.fill_(torch.nan)
    assert np.isnan(score([pairs[0].prompt], [pairs[0].images], ["x"])).all()


def test_no_pairs_cannot_be_measured(saved_reward):
    with pytest.raises(DataError, match="at least one pair"):
        evaluate_pairs(LearnedReward.load(saved_reward), [])
