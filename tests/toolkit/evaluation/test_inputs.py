"""What the eval stage reads: training references never hold a test image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from toolkit.config.blocks import CaptionSource, ModelSpec, RunSpec
from toolkit.config.blocks import TestDataSpec as DataOfTest
from toolkit.config.schema import EvalRecipe, SystemSpec
from toolkit.data.splits import part_of
from toolkit.errors import DataError
from toolkit.evaluation.inputs import read_inputs

NAMES = [f"{number:03}.png" for number in range(60)]


@pytest.fixture
def one_file(tmp_path: Path) -> Path:
    """A folder with pictures and one caption file for all parts."""
    for number, name in enumerate(NAMES):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name)
    captions = {name: [f"picture {name}", "a picture"] for name in NAMES}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    return tmp_path


def recipe(folder: Path, part: str, references: str = "captions.json") -> EvalRecipe:
    source = CaptionSource(kind="caption", captions="captions.json", part=part)  # type: ignore[arg-type]
    return EvalRecipe(
        stage="eval",
        systems=[SystemSpec(name="base", model=ModelSpec(id="model"))],
        data=DataOfTest(root=str(folder), test=[source]),
        train_references=references,
        run=RunSpec(output_dir=str(folder / "out")),
    )


def test_of_one_file_for_all_parts_only_the_training_part_is_reference(one_file: Path) -> None:
    found = read_inputs(recipe(one_file, "test"), judged=False)
    assert {row.image_id for row in found.split.captions} == {n for n in NAMES if part_of(n) == "test"}
    assert set(found.train_references or ()) == {name for name in NAMES if part_of(name) == "train"}


def test_a_file_of_training_images_is_used_whole(one_file: Path) -> None:
    (one_file / "train.json").write_text(json.dumps({f"other-{name}": ["a caption"] for name in NAMES}))
    found = read_inputs(recipe(one_file, "test", "train.json"), judged=False)
    assert len(found.train_references or ()) == len(NAMES)


def test_references_of_test_images_alone_are_refused(one_file: Path) -> None:
    with pytest.raises(DataError, match="every image is a test image"):
        read_inputs(recipe(one_file, "all"), judged=False)
