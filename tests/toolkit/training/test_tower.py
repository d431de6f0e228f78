"""The tower learns what patches show, once, and says what is wrong with its labels."""

import numpy as np
import pytest
import torch

from toolkit.config.schema import RunSpec, TinyArchitecture, TowerSpec
from toolkit.data.scenes.pretraining import write_pretraining
from toolkit.errors import DataError
from toolkit.models.families.llava import build_tiny_llava
from toolkit.runs.directory import RunDirectory
from toolkit.training.tower import TOWER_FILE, train_tower

ARCHITECTURE = TinyArchitecture(
    vision_hidden=32, vision_layers=1, vision_heads=2, vision_mlp=32, text_hidden=64, text_layers=1, text_heads=1,
    text_mlp=64, vocabulary=300,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretraining")
    write_pretraining(folder, seed=0, rows=64)
    return folder


def built():
    return build_tiny_llava(ARCHITECTURE, texts=["a red circle", "two blue squares"], seed=0)


def trained(data, path, steps):
    model, processor = built()
    directory = RunDirectory(RunSpec(output_dir=str(path)).output_dir)
    directory.path.mkdir(exist_ok=True)
    spec = TowerSpec(steps=steps, batch_size=16, learning_rate=3e-3)
    train_tower(model, processor, spec, root=data, directory=directory, seed=0)
    return model


def test_same_seed_same_tower_and_only_the_tower_moves(data, tmp_path):
    first, second = (trained(data, tmp_path / name, 3).state_dict() for name in "ab")
    fresh = built()[0].state_dict()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        untouched = "vision_tower" not in name or "post_layernorm" in name
        assert torch.equal(value, fresh[name]) == untouched, name


def test_a_finished_tower_is_loaded_not_trained_again(data, tmp_path):
    first = trained(data, tmp_path, 3).state_dict()
    written = (tmp_path / TOWER_FILE).stat().st_mtime_ns
    again = trained(data, tmp_path, 50).state_dict()
    assert (tmp_path / TOWER_FILE).stat().st_mtime_ns == written
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_labels_of_another_architecture_are_refused(data, tmp_path):
    with np.load(data / "patch_labels.npz") as stored:
        values = dict(stored)
    values["labels"] = values["labels"][:, :9]
    np.savez(tmp_path / "patch_labels.npz", **values)
    with pytest.raises(DataError, match=r"9 patches a picture, the architecture has 36"):
        trained(tmp_path, tmp_path / "run", 1)


def test_missing_labels_say_how_to_do_without(tmp_path):
    with pytest.raises(DataError, match="tower: null"):
        trained(tmp_path, tmp_path / "run", 1)
