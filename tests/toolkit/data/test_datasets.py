"""Datasets in TRL's vocabulary whose pictures are decoded by our own rules, on access."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from toolkit.data.datasets import preference_dataset, sft_dataset
from toolkit.errors import DataError
from toolkit.records import PreferenceRow, SftRow, image_prompt


def _answer(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


@pytest.fixture
def sft_rows(tmp_path: Path, picture: Callable[..., Path]) -> list[SftRow]:
    """One picture as a path, one as bytes with a transparent ground."""
    buffer = BytesIO()
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(buffer, "PNG")
    images = [picture(tmp_path / "a.png"), buffer.getvalue()]
    return [
        SftRow(
            sample_id=f"s{number}",
            task="caption",
            prompt=image_prompt("Describe."),
            completion=f"text {number}",
            images=(image,),
        )
        for number, image in enumerate(images)
    ]


def test_sft_dataset(sft_rows: list[SftRow]) -> None:
    dataset = sft_dataset(sft_rows)
    assert dataset.column_names == ["prompt", "images", "sample_id", "task", "completion"]
    first, second = dataset[0], dataset[1]
    assert first["prompt"] == image_prompt("Describe.")
    assert (first["completion"], first["sample_id"], first["task"]) == (_answer("text 0"), "s0", "caption")
    assert [image.getpixel((0, 0)) for image in (*first["images"], *second["images"])] == [
        (200, 30, 30),
        (255, 255, 255),
    ]
    assert {image.mode for image in (*first["images"], *second["images"])} == {"RGB"}


def test_preference_dataset(sft_rows: list[SftRow]) -> None:
    rows = [
        PreferenceRow(
            sample_id=row.sample_id,
            task="caption",
            prompt=row.prompt,
            chosen="good",
            rejected="",
            images=row.images,
            margin=margin,
            source="people",
        )
        for row, margin in zip(sft_rows, (None, 0.25), strict=True)
    ]
    dataset = preference_dataset(rows)
    assert (dataset[0]["chosen"], dataset[0]["rejected"]) == (_answer("good"), _answer(""))
    assert (dataset[0]["margin"], dataset[1]["margin"], dataset[0]["source"]) == (None, 0.25, "people")


def test_columns_can_be_removed_and_rows_selected(sft_rows: list[SftRow]) -> None:
    dataset = sft_dataset(sft_rows).remove_columns(["sample_id", "task"]).select([1])
    assert set(dataset[0]) == {"prompt", "images", "completion"}
    assert dataset[:1]["images"][0][0].getpixel((0, 0)) == (255, 255, 255)


def test_rows_without_pictures_and_datasets_sent_to_workers(sft_rows: list[SftRow]) -> None:
    text = SftRow(
        sample_id="t", task="vqa", prompt=image_prompt("Hi", images=0), completion="hello", images=()
    )
    dataset = pickle.loads(pickle.dumps(sft_dataset([*sft_rows, text])))
    assert dataset[2]["images"] == []
    assert dataset[2]["prompt"] == [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert dataset[0]["images"][0].size == (8, 6)


def test_pictures_are_decoded_on_access(sft_rows: list[SftRow]) -> None:
    dataset = sft_dataset(sft_rows)
    path = sft_rows[0].images[0]
    assert isinstance(path, Path)
    path.unlink()
    assert dataset[1]["sample_id"] == "s1"
    with pytest.raises(DataError, match=r"a\.png: no such file"):
        dataset[0]


@pytest.mark.slow  # importing TRL takes some seconds
def test_trl_sees_vision_data(sft_rows: list[SftRow]) -> None:
    data_utils = pytest.importorskip("trl.data_utils")
    example = sft_dataset(sft_rows)[0]
    assert data_utils.is_conversational(example)
    message = data_utils.prepare_multimodal_messages(example["prompt"], images=example["images"])[0]
    assert message["content"][0] == {"type": "image", "image": example["images"][0]}
    assert message["content"][1] == {"type": "text", "text": "Describe."}
