"""Invariants that no other test states by itself: image tokens equal features, and who may name a test split."""

from __future__ import annotations

import dataclasses
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

from .conftest import load_policy, make_rows


class Cropped(Family):
    """A family whose tower gives one feature less than the processor has made room for."""

    def feature_counts(self, image_inputs: dict[str, torch.Tensor]) -> list[int]:  # type: ignore[override]
        return [8] * len(image_inputs["pixel_values"])


def test_another_number_of_image_tokens_than_features_is_refused_when_data_is_read(base: Path) -> None:
    vlm = load_policy(base)
    row = make_rows(1)[0]
    images = [load_image(source) for source in row.images]
    encode_prompt(vlm, row.prompt, images)
    wrong = dataclasses.replace(vlm, family=Cropped(vlm.family.config))
    assert isinstance(wrong, LoadedVlm)
    with pytest.raises(DataError, match="9 image tokens in the text, but the vision tower gives 8 features"):
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
