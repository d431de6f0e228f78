"""Ranked lists: scored together as apart, learned from, weighted by source."""

import json
import shutil

import pytest
import torch

from reward_models.data import load_reward_data
from reward_models.pairs import PairCollator, RankedCollator, score_lists, score_pairs
from reward_models.prompts import PromptEncoder
from reward_models.stage import train_reward
from toolkit.config.schema import RewardLossSpec
from toolkit.errors import DataError, RecipeError
from toolkit.records import RankedRow
from toolkit.runs.directory import RunDirectory


@pytest.fixture
def list_folder(pair_folder, tmp_path):
    """The pair folder's pictures with lists of three colours, two of them equally wrong, and a tie."""
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copytree(pair_folder / "images", folder / "images")
    lines = [json.loads(line) for line in (pair_folder / "train.jsonl").read_text().splitlines()]
    lists = []
    for line in lines:
        texts = [line["chosen"], line["rejected"], "a purple picture"]
        common = {key: line[key] for key in ("prompt", "images", "source", "sample_id")}
        lists.append({**common, "completions": texts, "ratings": [3, 1, 1]})
    tie = {**lines[0], "sample_id": "tie", "tie": True}
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*lists, tie]))
    (folder / "val.jsonl").write_text((pair_folder / "val.jsonl").read_text())
    return folder


@pytest.fixture
def recipe(bases, list_folder, new_recipe, tmp_path):
    def build(**values):
        return new_recipe(bases["llava"], list_folder, tmp_path / "run", **values)

    return build


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_lists_score_as_their_completions_do_in_pairs(family, bases, new_reward, pairs):
    model, _ = new_reward(bases[family])
    encoder = PromptEncoder(model.vlm)
    rows = [
        RankedRow(
            sample_id=pair.sample_id,
            task=pair.task,
            prompt=pair.prompt,
            images=pair.images,
            completions=(pair.chosen, pair.rejected, "something " * index)[: 2 + index % 2],
            ranks=(0, 1, 2)[: 2 + index % 2],
        )
        for index, pair in enumerate(pairs[:5])
    ]
    with torch.no_grad():
        chosen, rejected = score_pairs(model, PairCollator(encoder)(pairs[:5])["pairs"])
        for pack in (True, False):
            batch = RankedCollator(encoder, pack=pack)(rows)["lists"]
            scores = score_lists(model, batch)
            assert scores.shape == batch.ranks.shape == (5, 3)
            torch.testing.assert_close(scores[:, :2], torch.stack([chosen, rejected], 1), atol=1e-5, rtol=0)
            assert (scores[batch.ranks < 0] == 0).all()
            assert (scores[batch.ranks == 2] != 0).all()


def test_lists_pairs_and_ties_of_one_file(recipe):
    listed, val = load_reward_data(recipe(loss=RewardLossSpec(kind="plackett_luce")))
    assert {row.ranks for row in listed} == {(0, 1, 1)}
    pairs, _ = load_reward_data(recipe(source_weights={"easy": 3.0}))
    assert len(pairs) == 3 * len(listed) + 1
    assert sum(pair.tie for pair in pairs) == len(listed) + 1
    assert {(row.source, row.weight) for row in pairs} == {("easy", 3.0), ("hard", 1.0)}
    assert len(val) == 24
    with pytest.raises(RecipeError, match=r"source_weights.human: no training row has the source 'human'"):
        load_reward_data(recipe(source_weights={"human": 2.0}))


def test_nothing_but_ties_is_refused(recipe, list_folder):
    lines = (list_folder / "train.jsonl").read_text().splitlines()
    (list_folder / "train.jsonl").write_text(lines[-1] + "\n")
    for kind in ("plackett_luce", "rao_kupper"):
        with pytest.raises(DataError, match="all 1 training rows are ties"):
            load_reward_data(recipe(loss=RewardLossSpec(kind=kind)))


@pytest.mark.parametrize("kind", ["plackett_luce", "rao_kupper", "graded"])
def test_every_loss_trains(kind, recipe):
    built = recipe(loss=RewardLossSpec(kind=kind), steps=4)
    directory = RunDirectory(built.run.output_dir)
    directory.path.mkdir(parents=True)
    train_reward(built, directory, False)
    lines = [json.loads(line) for line in directory.metrics.path.read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert {"accuracy", "margin"} <= lines[0].keys()


def test_weights_are_relative_to_their_mean(recipe):
    """A weight that all rows share changes nothing; that of one source does."""
    figures = {}
    for name, weights in {
        "none": {},
        "all": {"easy": 4.0, "hard": 4.0},
        "easy": {"easy": 4.0},
    }.items():
        built = recipe(source_weights=weights, steps=2)
        built = built.model_copy(
            update={"run": built.run.model_copy(update={"output_dir": f"{built.run.output_dir}-{name}"})}
        )
        directory = RunDirectory(built.run.output_dir)
        directory.path.mkdir(parents=True)
        train_reward(built, directory, False)
        lines = directory.metrics.path.read_text().splitlines()
        figures[name] = [json.loads(line)["loss"] for line in lines if '"loss"' in line]
    assert figures["all"] == pytest.approx(figures["none"], rel=1e-5)
    assert figures["easy"] != pytest.approx(figures["none"], rel=1e-3)
