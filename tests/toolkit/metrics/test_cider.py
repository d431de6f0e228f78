"""CIDEr-D against a plain reading of the paper, with fixed frequencies, end tokens and saved tables."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import DataError, UsageError
from toolkit.metrics import Cider, CiderD, DocumentFrequencies

REFERENCES = {
    "a": ["a dog runs on grass", "the dog is running"],
    "b": ["two cats sleep", "cats are sleeping on a couch", "a couch with two cats"],
    "c": ["a red bus"],
}


def plain_cider_d(caption, own_references, references, images):
    """CIDEr-D as the formulas say, one n-gram at a time."""

    def counts(words, n):
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    def weight(ngram):
        n = len(ngram)
        df = sum(any(ngram in counts(text.split(), n) for text in texts) for texts in references.values())
        return math.log(images) - math.log(max(1, df))

    total = 0.0
    for text in own_references:
        for n in range(1, 5):
            hyp, ref = counts(caption.split(), n), counts(text.split(), n)
            dot = sum(min(hyp[g], ref[g]) * ref[g] * weight(g) ** 2 for g in hyp)
            norm = math.sqrt(sum((c * weight(g)) ** 2 for g, c in hyp.items()))
            norm *= math.sqrt(sum((c * weight(g)) ** 2 for g, c in ref.items()))
            delta = max(len(caption.split()) - 1, 0) - max(len(text.split()) - 1, 0)
            total += (dot / norm if norm else 0.0) * math.exp(-(delta**2) / 72)
    return total / 4 / len(own_references) * 10


WORDS = st.lists(
    st.sampled_from("a dog cat runs on grass couch two red bus the zebra".split()), max_size=7
).map(" ".join)


@given(st.sampled_from(sorted(REFERENCES)), WORDS)
@settings(max_examples=200, deadline=None)
def test_equals_the_formulas(image_id, caption):
    expected = plain_cider_d(caption, REFERENCES[image_id], REFERENCES, len(REFERENCES))
    assert CiderD(REFERENCES).score([image_id], [caption])[0] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(st.lists(WORDS, min_size=2, max_size=6))
@settings(max_examples=50, deadline=None)
def test_no_caption_changes_the_score_of_another(captions):
    scorer = CiderD(REFERENCES)
    together = scorer.score(["a"] * len(captions), captions)
    alone = [scorer.score(["a"], [caption])[0] for caption in captions]
    np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-15)


def test_scores_are_float64_on_the_scale_0_to_10():
    scores = CiderD(REFERENCES).score(["c", "c"], ["a red bus", ""])
    assert scores.dtype == np.float64
    assert scores.shape == (2,)
    assert scores[0] == pytest.approx(7.5)  # three words: nothing of four words to compare
    assert scores[1] == 0.0


def test_the_original_cider_has_no_length_penalty():
    scorer = Cider(REFERENCES)
    once, twice = scorer.score(["c", "c"], ["a red bus", "a red bus a red bus"])
    assert twice > CiderD(REFERENCES).score(["c"], ["a red bus a red bus"])[0]
    assert once == pytest.approx(7.5)


def test_end_tokens_count_only_where_a_caption_ended():
    scorer = CiderD(REFERENCES, end_token="<eos>")
    ended, cut = scorer.score(["c", "c"], ["a red bus", "a red bus"], ended=[True, False])
    assert ended == pytest.approx(10.0)
    assert cut < ended
    assert scorer.score(["c"], ["a red bus"])[0] == cut


def test_a_table_of_another_setting_is_refused(tmp_path):
    table = DocumentFrequencies.from_references(REFERENCES, end_token="<eos>")
    with pytest.raises(DataError, match="<eos>"):
        CiderD(REFERENCES, table)
    table.save(tmp_path / "df.safetensors")
    assert DocumentFrequencies.load(tmp_path / "df.safetensors").end_token == "<eos>"
    with pytest.raises(DataError):
        CiderD(REFERENCES, DocumentFrequencies.load(tmp_path / "df.safetensors"), end_token="</s>")


def test_a_saved_table_gives_the_same_scores(tmp_path):
    other = {"x": ["a dog on a couch", "the zebra"], "y": ["two red cats run"], "z": ["a bus"]}
    table = DocumentFrequencies.from_references(other)
    table.save(tmp_path / "df.safetensors")
    loaded = DocumentFrequencies.load(tmp_path / "df.safetensors")
    ids, captions = ["a", "b", "c"], ["a dog on grass", "two cats", "a blue bus"]
    expected = CiderD(REFERENCES, table).score(ids, captions)
    np.testing.assert_array_equal(CiderD(REFERENCES, loaded).score(ids, captions), expected)
    assert loaded.num_images == 3
    assert loaded.of(["a"]) == 2
    assert loaded.of(["on", "a"]) == 1
    assert loaded.of(["never", "seen"]) == 0


def test_scoring_leaves_no_trace():
    scorer = CiderD(REFERENCES)
    before = scorer.score(["a"], ["a dog"])[0]
    for place in range(50):
        scorer.score(["a"], [f"word{place} never seen before"])
    assert scorer.score(["a"], ["a dog"])[0] == before
    assert "word1" not in scorer.frequencies.index.vocabulary


def test_wrong_calls_name_the_id_and_the_numbers():
    scorer = CiderD(REFERENCES)
    with pytest.raises(DataError, match="'nowhere'"):
        scorer.score(["nowhere"], ["a"])
    with pytest.raises(UsageError, match="a list of texts"):
        scorer.score([1], "a")
    with pytest.raises(UsageError, match="2 image ids for 1 captions"):
        scorer.score(["a", "b"], ["a"])
    with pytest.raises(UsageError, match="end_token"):
        scorer.score(["a"], ["a"], ended=[True])
    with pytest.raises(UsageError, match="white space"):
        CiderD(REFERENCES, end_token="the end")
    with pytest.raises(UsageError, match="corpora"):
        CiderD(REFERENCES, "corpora")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fixed_df_ciderD", "plain_cider"])
def test_reference_scores(shared_data: Path, name: str):
    def read(path):
        with gzip.open(shared_data / path, "rt", encoding="utf-8") as stream:
            return json.load(stream)

    expected = read(f"reference_scores/{name}__coco_karpathy_test__show_edit_tell_rl.json.gz")
    references = {row["image_id"]: row["captions"] for row in read("coco/karpathy_test.json.gz")}
    results = {row["image_id"]: row["caption"] for row in read("hyps/show_edit_tell_rl_caps.json.gz")}
    if name == "plain_cider":
        scorer: CiderD = Cider(references)
    else:
        corpus: dict[int, list[str]] = {}
        for row in read("coco/captions_val2017_part.json.gz")["annotations"]:
            corpus.setdefault(row["image_id"], []).append(row["caption"])
        scorer = CiderD(references, DocumentFrequencies.from_references(corpus))
    scores = scorer.score(list(results), list(results.values()))
    want = [expected["per_image"][str(image_id)] for image_id in results]
    np.testing.assert_allclose(scores, want, rtol=1e-9, atol=1e-12)
    assert scores.mean() == pytest.approx(expected["corpus"]["score"], rel=1e-9)
