"""The benchmarks of reward models on fresh scenes: a folder laid out as a quickstart's, with an untrained reward."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reward_models.checkpoint import describe, save_reward_model
from reward_models.config import CONFIG_FILE
from reward_models.model import VlmRewardModel
from toolkit.bundled import bundled_path
from toolkit.config.schema import LoraSpec, ModelSpec
from toolkit.data.scenes.scene import Group, Scene
from toolkit.models.loading import load_vlm

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCENE = Scene(
    image_id=1,
    layout="row",
    groups=(Group(1, "small", "red", "circle"), Group(2, "large", "blue", "square")),
    jitter=0,
)


@pytest.fixture(scope="module")
def module():
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The bundled base with adapters that change nothing yet, and heads of random weights."""
    root = tmp_path_factory.mktemp("chain")
    spec = ModelSpec(id=str(bundled_path("tiny-vlm")), lora=LoraSpec(rank=4, alpha=8))
    vlm = load_vlm(spec, trainable=True)
    (root / "sft" / "final").mkdir(parents=True)
    vlm.model.save_pretrained(root / "sft" / "final")
    vlm.processor.save_pretrained(root / "sft" / "final")
    for seed, name in enumerate(("reward", "reward-text-only", "ensemble/member-0", "ensemble/member-1")):
        model = VlmRewardModel.new(vlm)
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.head.linear.weight, std=0.3)
        folder = root / name if "member" in name else root / name / "final"
        folder.mkdir(parents=True)
        config = describe(vlm, spec, blank_images=name == "reward-text-only")
        save_reward_model(model, folder, config)
        (root / name / "finished.json").write_text(json.dumps({"seconds": 60.0 + seed}))
    whole = config.model_copy(update={"members": 2, "std_penalty": 1.0})
    (root / "ensemble" / CONFIG_FILE).write_text(whole.model_dump_json())
    return root


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("a red circle and two blue squares", "two blue squares and a red circle", "order"),
        ("a small red circle and two blue squares", "two blue squares and a red circle", "order"),
        (
            "a red circle left of two blue squares",
            "a red circle right of two blue squares",
            "relation",
        ),
        ("a red circle and two blue squares", "a red circle and one blue square", "content"),
        ("a red circle and two blue squares", "a large red circle and two blue squares", "content"),
        ("a red circle and two blue squares", "a red circle", "content"),
    ],
)
def test_what_tells_two_captions_apart(first, second, expected, module):
    difference = module("reward_pairs").difference
    assert difference(SCENE, first, second) == difference(SCENE, second, first) == expected


def test_bundled_pairs_are_gold_fresh_and_as_many_as_asked(module):
    pairs = module("reward_pairs")
    for kind in ("seen", "unseen"):
        scenes = pairs.scenes_of("test", 5, kind, 30)
        assert all(scene.has_unseen_combination == (kind == "unseen") for scene in scenes)
        rows = pairs.bundled_pairs(scenes, 5, 30)
        assert len(rows) == 4 * 30
        assert {row.source for row in rows} == {"order", "attribute", "relation", "answer"}
        golds = module("toolkit.data.scenes.gold").gold
        known = {scene.image_id: scene for scene in scenes}
        for row in (row for row in rows if row.task == "caption"):
            scene = known[int(row.sample_id.split("-")[0])]
            assert golds(scene, row.chosen) > golds(scene, row.rejected)


@pytest.mark.slow
def test_accuracy_by_source_with_its_twins_and_calibration(module, chain, capsys):
    words = ["--from", str(chain), "--pairs", "6", "--combinations", "seen"]
    assert module("reward_scenes").main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[str(chain)]
    assert found["training_seconds"] == {"reward": 60.0, "reward-text-only": 61.0}
    here = found["seen"]
    bundled = {name: here["by_source"][name] for name in ("order", "attribute", "relation", "answer")}
    assert all(row["n"] == 6 for row in bundled.values())
    assert here["by_source"]["on_policy"]["n"] > 0  # the base writes captions that differ in worth
    assert here["by_source"]["all"]["n"] == 24 + here["by_source"]["on_policy"]["n"]
    mean = np.mean([row["accuracy"] for row in bundled.values()])
    assert here["by_source"]["bundled"]["accuracy"] == pytest.approx(mean)
    for row in here["by_source"].values():
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
    assert sum(point["pairs"] for point in here["reliability"]) == here["by_source"]["all"]["n"]
    assert 0 <= here["ece"] <= 1


@pytest.mark.slow
def test_best_of_n_by_ensemble_and_single_and_how_far_members_are_apart(module, chain, tmp_path, capsys):
    words = ["--from", str(chain), "--ensemble", str(chain / "ensemble"), "--images", "6", "--samples", "4"]
    Image.new("RGB", (60, 40), (10, 200, 30)).save(tmp_path / "one.jpg")
    words += ["--pairs", "4", "--photographs", str(tmp_path), "--std-penalty", "1", "2"]
    assert module("reward_ensemble").main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    best = found["best_of_n"]
    assert best["n"] == [1, 2, 4]
    assert set(best["curves"]) == {
        *(
            "pessimistic, λ = 1",
            "pessimistic, λ = 2",
            "single",
            "mean",
            "member 0",
            "member 1",
            "best possible",
        )
    }
    firsts = {round(curve[0]["mean"], 9) for curve in best["curves"].values()}
    assert len(firsts) == 1  # of one sample there is nothing to choose
    assert best["curves"]["best possible"][-1]["mean"] >= best["curves"]["single"][-1]["mean"]
    apart = found["disagreement"]
    assert list(apart) == [
        *("own", "another scene's", "unseen combinations", "negative", "noise", "photographs")
    ]
    assert all(row["pairs"] == 12 and row["std"]["mean"] > 0 for row in apart.values())
