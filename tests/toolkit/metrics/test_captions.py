"""Corpus and per-image scores equal pycocoevalcap's; resampling equals scoring the resample."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.errors import DataError, UsageError
from toolkit.metrics import CaptionStatistics, CiderD, DocumentFrequencies, score_captions, score_vqa
from toolkit.metrics.diversity import score_diversity
from toolkit.metrics.pope import score_pope

NAMES = {"Bleu_1": "bleu_1", "Bleu_2": "bleu_2", "Bleu_3": "bleu_3", "Bleu_4": "bleu_4", "ROUGE_L": "rouge_l"}
NAMES["CIDEr"] = "cider"


def test_fixture_of_the_repository(official):
    scores = score_captions(official["references"], official["results"])
    for name, value in scores.corpus.items():
        assert value == pytest.approx(official["scores"]["corpus"][name], rel=1e-9, abs=1e-300), name
    for image_id, row in scores.per_image.items():
        for name, value in row.items():
            expected = official["scores"]["per_image"][image_id][name]
            assert value == pytest.approx(expected, rel=1e-9, abs=1e-300), (image_id, name)


def test_one_image_has_no_cider_of_its_own(official):
    """log 1 = 0: officially every CIDEr of a single image is 0."""
    expected = official["one_image"]["scores"]["corpus"]
    scores = score_captions({3: official["references"]["3"]}, {3: official["results"]["3"]})
    assert scores.corpus["cider"] == 0.0
    for name, value in scores.corpus.items():
        assert value == pytest.approx(expected[name], rel=1e-9)


def test_cider_d_and_score_captions_agree(official):
    references, results = official["references"], official["results"]
    scores = score_captions(references, results, ["cider"])
    own = CiderD(references).score(list(results), list(results.values()))
    np.testing.assert_allclose(
        [row["cider"] for row in scores.per_image.values()], own, rtol=1e-12, atol=1e-300
    )


@pytest.mark.parametrize("fixed", [False, True])
def test_a_resample_scores_as_a_set_of_its_own(official, fixed):
    references, results = official["references"], official["results"]
    frequencies: Any = DocumentFrequencies.from_references(references) if fixed else "corpus"
    statistics = CaptionStatistics(references, results, frequencies=frequencies)
    indices = np.random.default_rng(0).integers(len(references), size=len(references))
    ids = list(references)
    again_references = {place: references[ids[i]] for place, i in enumerate(indices)}
    again_results = {place: results[ids[i]] for place, i in enumerate(indices)}
    expected = score_captions(again_references, again_results, frequencies=frequencies).corpus
    assert statistics.corpus(indices) == pytest.approx(expected, rel=1e-12)
    assert statistics.corpus() == pytest.approx(
        score_captions(references, results, frequencies=frequencies).corpus
    )


def test_order_of_the_images_changes_nothing(official):
    references, results = official["references"], official["results"]
    turned = dict(reversed(references.items()))
    assert score_captions(turned, results).corpus == pytest.approx(
        score_captions(references, results).corpus, rel=1e-12
    )


def test_missing_and_extra_images_are_named():
    with pytest.raises(DataError, match=r"image 2 has references and no caption") as caught:
        score_captions({1: ["a"], 2: ["b"]}, {1: "a", 3: "c"})
    assert "image 3 has a caption and no references" in str(caught.value)
    with pytest.raises(DataError, match="image 7 has no reference"):
        score_captions({7: []}, {7: "a"})
    with pytest.raises(DataError, match="no images"):
        score_captions({}, {})


def test_a_score_of_no_images_is_refused():
    statistics = CaptionStatistics({1: ["a dog"]}, {1: "a dog"})
    with pytest.raises(UsageError, match="at least one image"):
        statistics.corpus(np.array([], dtype=int))


def test_unknown_metric():
    with pytest.raises(UsageError, match="spider"):
        score_captions({1: ["a"]}, {1: "a"}, ["spider"])


def test_empty_everything_is_defined():
    scores = score_captions({1: [""], 2: ["a dog"]}, {1: "", 2: "😀"})
    assert all(np.isfinite(list(row.values())).all() for row in scores.per_image.values())
    assert scores.per_image[2]["cider"] == 0.0
    assert scores.per_image[1]["rouge_l"] == pytest.approx(1.0)  # officially one empty token equals another


def _read(path: Path) -> Any:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return json.load(stream)


def _references(data: Path, name: str) -> dict[str, list[str]]:
    references: dict[str, list[str]] = {}
    if name == "audio_example_1":
        with gzip.open(data / "audio" / "example_1.csv.gz", "rt", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        return {str(place): [row[f"caption_{k}"] for k in range(1, 6)] for place, row in enumerate(rows)}
    for row in _read(data / "coco" / "captions_val2017_part.json.gz")["annotations"]:
        references.setdefault(str(row["image_id"]), []).append(row["caption"])
    karpathy = _read(data / "coco" / "karpathy_test.json.gz")
    return references | {str(row["image_id"]): row["captions"] for row in karpathy}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "audio_example_1",
        "coco_fakecap_shared",
        "coco_karpathy_test__show_edit_tell_rl",
        "coco_karpathy_test__viecap_coco",
        "coco_karpathy_test__vinvl_base",
        "coco_val2017_part__degenerate",
        "pope_Instruction1_llava",
    ],
)
def test_reference_scores(shared_data: Path, name: str):
    expected = _read(shared_data / "reference_scores" / f"{name}.json.gz")
    ids = list(expected["per_image"])
    every = _references(shared_data, name)
    results = {image_id: expected["tokenized_hyps"][image_id] for image_id in ids}
    scores = score_captions({image_id: every[image_id] for image_id in ids}, results)
    for theirs, ours in NAMES.items():
        assert scores.corpus[ours] == pytest.approx(expected["corpus"][theirs], rel=1e-9, abs=1e-300)
        got = [scores.per_image[image_id][ours] for image_id in ids]
        want = [expected["per_image"][image_id][theirs] for image_id in ids]
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("wrong", [None, float("nan"), ["a dog"], 3])
def test_what_is_no_text_is_named_by_its_id(wrong):
    references = {1: ["a dog"], "two": ["a cat"]}
    scorer = CiderD(references)
    for call in (
        lambda: score_captions(references, {1: "a dog", "two": wrong}),
        lambda: score_captions({1: ["a dog"], "two": [wrong]}, {1: "a dog", "two": "a cat"}),
        lambda: CiderD({1: ["a dog"], "two": ["a cat", wrong]}),
        lambda: scorer.score([1, "two"], ["a dog", wrong]),
        lambda: DocumentFrequencies.from_references({"two": [wrong]}),
        lambda: score_diversity({1: ["a dog"], "two": [wrong]}),
        lambda: score_pope({1: "yes", "two": "no"}, {1: "yes", "two": wrong}),
        lambda: score_vqa(
            [{"question_id": "two"}],
            [{"question_id": "two", "answers": ["a"]}],
            [{"question_id": "two", "answer": wrong}],
        ),
        lambda: score_vqa(
            [{"question_id": "two"}], [{"question_id": "two", "answers": [wrong]}], {"two": "a"}
        ),
    ):
        with pytest.raises(DataError, match="'two'"):
            call()


def test_a_caption_in_place_of_a_list_of_references_is_refused():
    with pytest.raises(DataError, match=r"image 1: expected a list of captions, found 'a dog'"):
        score_captions({1: "a dog", 2: ["x"]}, {1: "a dog", 2: "x"})
