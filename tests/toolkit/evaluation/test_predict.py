"""Greedy decoding in batches: order, resumption, and what a prediction depends on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from toolkit.config.schema import CaptionSource, DecodingSpec, ModelSpec
from toolkit.data.sources import load_prompt_rows
from toolkit.errors import Interrupted
from toolkit.evaluation.decoding import Strategy, sample_ids
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
    assert not is_complete(file, rows, DECODING)
    torn = file.path.read_bytes()[:-20]
    file.path.write_bytes(torn)
    calls: list[int] = []
    again = predict_rows(
        vlm, rows, decoding=DECODING, label="decode", file=file, after_batch=lambda: calls.append(1)
    )
    assert again == whole
    assert len(calls) == 3
    assert is_complete(file, rows, DECODING)
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


def sampled(**values: Any) -> DecodingSpec:
    return DecodingSpec(max_new_tokens=5, batch_size=4, **values)


def test_samples_depend_on_row_and_seed_alone(vlm: LoadedVlm, rows: list[PromptRow], tmp_path: Path) -> None:
    file = PredictionFile(tmp_path / "predictions.jsonl", {})
    decoding = sampled(strategy="sample:0.9,3")
    first = predict_rows(vlm, rows, decoding=decoding, label="decode", file=file)
    kept = file.read()
    assert [prediction.sample_id for prediction in first] == [row.sample_id for row in rows]
    assert set(kept) == {name for row in rows for name in sample_ids(row.sample_id, 3)}
    assert len({prediction.text for prediction in kept.values()}) > len(rows)
    # Alone, in other batches and as one sample of one: the same texts.
    alone = predict_rows(vlm, rows[2:3], decoding=sampled(strategy="sample:0.9"), label="decode")
    assert alone[0].text == first[2].text
    other = predict_rows(vlm, rows, decoding=sampled(strategy="sample:0.9,3", seed=1), label="decode")
    assert [one.text for one in other] != [one.text for one in first]
    assert predict_rows(vlm, rows, decoding=decoding, label="decode", file=file) == first


def test_beams_find_texts_that_are_at_least_as_likely(vlm: LoadedVlm, rows: list[PromptRow]) -> None:
    from transformers import GenerationConfig

    seen: list[GenerationConfig] = []
    own = vlm.model.generate

    def watched(*args: Any, **values: Any) -> Any:
        seen.append(values["generation_config"])
        return own(*args, **values)

    vlm.model.generate = watched
    try:
        found = predict_rows(vlm, rows[:4], decoding=sampled(strategy="beam:3"), label="decode")
    finally:
        del vlm.model.generate
    assert len(found) == 4
    assert seen[0].num_beams == 3
    assert not seen[0].do_sample


@pytest.mark.parametrize(
    "wrong", ["beam", "beam:0", "sample", "sample:0", "sample:0.0,2", "sample:1,0", "nucleus"]
)
def test_other_strategies_are_refused(wrong: str) -> None:
    with pytest.raises(ValidationError):
        sampled(strategy=wrong)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("greedy", Strategy()),
        ("beam:5", Strategy(beams=5)),
        ("sample:0.7,5", Strategy(temperature=0.7, samples=5)),
        ("sample:1", Strategy(temperature=1.0)),
    ],
)
def test_strategies(text: str, expected: Strategy) -> None:
    assert Strategy.of(sampled(strategy=text)) == expected
    assert Strategy.of(sampled(strategy=text)).describe()
