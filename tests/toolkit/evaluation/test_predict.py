"""Greedy decoding in batches: order, resumption, and what a prediction depends on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from toolkit.config.schema import CaptionSource, DecodingSpec, ModelSpec
from toolkit.data.sources import load_prompt_rows
from toolkit.errors import Interrupted
from toolkit.evaluation.predict import checkpoint_fingerprint, decoding_header, is_complete, predict_rows
from toolkit.evaluation.predictions import PredictionFile
from toolkit.models.loading import LoadedVlm, load_vlm
from toolkit.records import PromptRow

DECODING = DecodingSpec(max_new_tokens=5, batch_size=4)


@pytest.fixture(scope="module")
def vlm(checkpoint: Path) -> LoadedVlm:
    return load_vlm(ModelSpec(id=str(checkpoint)), trainable=False)


@pytest.fixture(scope="module")
def rows(scenes: Path) -> list[PromptRow]:
    return load_prompt_rows(
        [CaptionSource(kind="caption", captions="test/captions.json", images="test/images")], scenes
    )


def test_one_prediction_a_row_in_the_order_of_the_rows(vlm: LoadedVlm, rows: list[PromptRow]) -> None:
    found = predict_rows(vlm, rows, decoding=DECODING, label="decode")
    assert [prediction.sample_id for prediction in found] == [row.sample_id for row in rows]
    assert all(1 <= prediction.num_tokens <= 5 for prediction in found)


def test_an_interrupted_run_goes_on_with_whole_batches(
    vlm: LoadedVlm, rows: list[PromptRow], tmp_path: Path
) -> None:
    whole = predict_rows(vlm, rows, decoding=DECODING, label="decode")
    file = PredictionFile(tmp_path / "predictions.jsonl", {})

    def stop() -> None:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        predict_rows(vlm, rows, decoding=DECODING, label="decode", file=file, after_batch=stop)
    assert len(file.read()) == 4
    assert not is_complete(file, rows)
    torn = file.path.read_bytes()[:-20]
    file.path.write_bytes(torn)
    calls: list[int] = []
    again = predict_rows(
        vlm, rows, decoding=DECODING, label="decode", file=file, after_batch=lambda: calls.append(1)
    )
    assert again == whole
    assert len(calls) == 3
    assert is_complete(file, rows)
    assert len(file.path.read_text().splitlines()) == 1 + len(rows)


def test_a_complete_file_is_not_decoded_again(vlm: LoadedVlm, rows: list[PromptRow], tmp_path: Path) -> None:
    file = PredictionFile(tmp_path / "predictions.jsonl", {})
    first = predict_rows(vlm, rows, decoding=DECODING, label="decode", file=file)
    calls: list[int] = []
    again = predict_rows(
        vlm, rows, decoding=DECODING, label="decode", file=file, after_batch=lambda: calls.append(1)
    )
    assert again == first
    assert calls == []


def test_the_header_follows_weights_rows_and_decoding(
    checkpoint: Path, other_checkpoint: Path, rows: list[PromptRow], tmp_path: Path
) -> None:
    moved = tmp_path / "model"
    shutil.copytree(checkpoint, moved)
    spec = ModelSpec(id=str(moved))
    before = decoding_header(spec, rows, DECODING)
    assert decoding_header(spec, rows, DECODING) == before
    assert decoding_header(spec, rows[1:], DECODING) != before
    assert decoding_header(spec, rows, DecodingSpec(max_new_tokens=6, batch_size=4)) != before
    shutil.copy(other_checkpoint / "model.safetensors", moved / "model.safetensors")
    assert decoding_header(spec, rows, DECODING) != before
    assert checkpoint_fingerprint("some/hub-id") is None
