"""CLIPScore through a tiny random CLIP of transformers' own classes, against the formula."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.cli.main import main
from toolkit.errors import CheckpointError, DataError
from toolkit.models.clipscore import ClipScorer

CAPTIONS = ["a red square", "a blue thing on the left of something else", "a red square"]
REFERENCES = [["a red square"], ["blue", "a green circle"], ["something", "a square"]]


@pytest.fixture(scope="module")
def clip(tiny_clip: Path) -> Path:
    return tiny_clip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    for name, colour in (("red", "red"), ("blue", "blue")):
        Image.new("RGB", (20, 24), colour).save(folder / f"{name}.png")
    return [folder / "red.png", folder / "blue.png", folder / "blue.png"]


def vectors(folder, images, texts):
    """Unit vectors by transformers alone, one item at a time."""
    import torch
    from transformers import AutoModel, AutoProcessor

    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    with torch.inference_mode():
        seen = [
            model.get_image_features(
                **processor.image_processor(images=[Image.open(path)], return_tensors="pt")
            )
            for path in images
        ]
        said = [
            model.get_text_features(
                **processor.tokenizer(
                    [f"A photo depicts {t}"], truncation=True, max_length=40, return_tensors="pt"
                )
            )
            for t in texts
        ]
    unit = [out.pooler_output[0].double().numpy() for out in (*seen, *said)]
    unit = [vector / np.linalg.norm(vector) for vector in unit]
    return unit[: len(images)], unit[len(images) :]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_equals_the_formula(clip, pictures, batch_size):
    scores = ClipScorer(str(clip), batch_size=batch_size).score(pictures, CAPTIONS, REFERENCES)
    for place, (caption, own) in enumerate(zip(CAPTIONS, REFERENCES, strict=True)):
        (seen,), (said, *references) = vectors(clip, [pictures[place]], [caption, *own])
        expected = 2.5 * max(seen @ said, 0)
        assert scores.clip[place] == pytest.approx(expected, abs=1e-5)
        best = max(0.0, *(said @ reference for reference in references))
        harmonic = 2 * expected * best / (expected + best) if expected + best else 0.0
        assert scores.ref_clip[place] == pytest.approx(harmonic, abs=1e-5)
    assert scores.clip[0] != pytest.approx(scores.clip[2], abs=1e-6)  # the same words, another picture


def test_the_command(clip, pictures, tmp_path, capsys):
    rows = [{"image_id": 1, "file_name": "red.png", "captions": ["a red square"]}]
    (tmp_path / "references.json").write_text(json.dumps(rows))
    (tmp_path / "results.json").write_text(json.dumps([{"image_id": 1, "caption": "a red square"}]))
    words = [
        "score",
        "clip",
        "--results",
        tmp_path / "results.json",
        "--references",
        tmp_path / "references.json",
    ]
    words += [
        "--images",
        pictures[0].parent,
        "--model",
        clip,
        "--json",
        "--per-image",
        tmp_path / "each.jsonl",
    ]
    assert main([str(word) for word in words]) == 0
    told = json.loads(capsys.readouterr().out)
    expected = ClipScorer(str(clip)).score(pictures[:1], CAPTIONS[:1], REFERENCES[:1])
    assert told["clip_score"] == pytest.approx(expected.clip[0])
    assert told["ref_clip_score"] == pytest.approx(expected.ref_clip[0])
    assert json.loads((tmp_path / "each.jsonl").read_text())["clip_score"] == pytest.approx(expected.clip[0])


def test_what_is_no_clip_is_refused(clip, pictures, tmp_path):
    with pytest.raises(CheckpointError, match="no directory"):
        ClipScorer(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot load"):
        ClipScorer(str(tmp_path))
    scorer = ClipScorer(str(clip))
    with pytest.raises(DataError, match="for each caption"):
        scorer.score(pictures, CAPTIONS[:1])
    with pytest.raises(DataError, match="caption 1 has no reference"):
        scorer.score(pictures, CAPTIONS, [["a"], [], ["b"]])
