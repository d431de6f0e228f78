"""Invariants that no other test states by itself: image tokens equal features, and who may name a test split."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from toolkit.config.loading import stage_classes
from toolkit.config.schema import DataSpec
from toolkit.data.images import load_image
from toolkit.errors import DataError
from toolkit.models.encoding import encode_prompt
from toolkit.models.families import Family
from toolkit.models.loading import LoadedVlm

from .conftest import SIZES, load_policy, make_rows


def cropped(family: Family) -> Family:
    """The same family with a tower that gives one feature a tile less than the processor has made room for."""

    class Cropped(type(family)):  # type: ignore[misc]
        def feature_counts(self, image_inputs: dict[str, torch.Tensor]) -> list[int]:
            return [count - 1 for count in super().feature_counts(image_inputs)]

    return Cropped(family.config)


@pytest.mark.parametrize(
    ("name", "tokens", "features"), [("llava", 9, 8), ("idefics3", 27, 24), ("qwen2_5_vl", 8, 7)]
)
def test_another_number_of_image_tokens_than_features_is_refused_when_data_is_read(
    bases: dict[str, Path], name: str, tokens: int, features: int
) -> None:
    vlm = load_policy(bases[name])
    row = make_rows(1, sizes=SIZES[2:])[0]
    images = [load_image(source) for source in row.images]
    encode_prompt(vlm, row.prompt, images)
    wrong = dataclasses.replace(vlm, family=cropped(vlm.family))
    assert isinstance(wrong, LoadedVlm)
    told = f"{tokens} image tokens in the text, but the vision tower gives {features} features"
    with pytest.raises(DataError, match=told):
        encode_prompt(wrong, row.prompt, images)


def test_no_stage_but_eval_can_name_a_test_split() -> None:
    source = {"kind": "rows", "file": "rows.jsonl"}
    with pytest.raises(ValidationError, match="test"):
        DataSpec.model_validate({"root": ".", "train": [source], "test": [source]})
    with_test = {
        stage
        for stage, recipe in stage_classes().items()
        for field in [recipe.model_fields.get("data")]
        if field is not None and "test" in getattr(field.annotation, "model_fields", {})
    }
    assert with_test == {"eval"}


def test_the_page_of_invariants_names_tests_that_exist(repository: Path) -> None:
    page = (repository / "docs" / "invariants.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/\S+\.py)::(\w+)`", page)
    assert len(named) > 40
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"^def {test}\(", (repository / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert not missing
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)]
    assert numbers == list(range(1, 16))
