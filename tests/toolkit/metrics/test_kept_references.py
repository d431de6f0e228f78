"""References kept beside their frequencies: same scores, found by their captions, mapped from the file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import DataError
from toolkit.metrics import CiderD, DocumentFrequencies
from toolkit.metrics import references as references_module
from toolkit.metrics.kept_references import caption_digests

REFERENCES = {
    "a": ["a dog runs on grass", "the dog is running"],
    "b": ["two cats sleep", "cats are sleeping on a couch", "a couch with two cats"],
    "c": ["a red bus"],
    "d": [""],
}
CAPTIONS = {"a": "a dog on a couch", "b": "two cats on grass", "c": "a red zebra", "d": "nothing"}


@pytest.fixture
def unprepared(monkeypatch):
    """Fails the test if references are prepared anew."""

    def refuse(*args, **kwargs):
        raise AssertionError("references were prepared again")

    monkeypatch.setattr(references_module.PreparedReferences, "build", refuse)


def scores(references, table, end_token=None):
    scorer = CiderD(references, table, end_token)
    return scorer.score(list(references), [CAPTIONS[str(key)[-1]] for key in references])


@pytest.mark.parametrize("end_token", [None, "<eos>"])
def test_a_scorer_from_the_file_prepares_nothing(tmp_path, end_token, request):
    table = DocumentFrequencies.from_references(REFERENCES, end_token)
    table.save(tmp_path / "whole.safetensors")
    table.save(tmp_path / "bare.safetensors", with_references=False)
    assert (tmp_path / "bare.safetensors").stat().st_size < (tmp_path / "whole.safetensors").stat().st_size
    bare = DocumentFrequencies.load(tmp_path / "bare.safetensors")
    assert bare.kept is None
    expected = scores(REFERENCES, bare, end_token)
    loaded = DocumentFrequencies.load(tmp_path / "whole.safetensors")
    request.getfixturevalue("unprepared")
    np.testing.assert_array_equal(scores(REFERENCES, loaded, end_token), expected)
    some = {key: REFERENCES[key] for key in ("c", "a")}
    np.testing.assert_array_equal(scores(some, loaded, end_token), expected[[2, 0]])
    renamed = {("other", key): texts for key, texts in REFERENCES.items()}
    assert CiderD(renamed, loaded, end_token).score([("other", "c")], ["a red bus"])[0] > 5


def test_captions_that_changed_are_prepared_anew():
    table = DocumentFrequencies.from_references(REFERENCES)
    changed = REFERENCES | {"c": ["a blue bus"]}
    bare = DocumentFrequencies(table.index, table.counts, table.num_images)
    np.testing.assert_array_equal(scores(changed, table), scores(changed, bare))
    assert not np.array_equal(scores(changed, table), scores(REFERENCES, table))


def test_an_image_without_references_and_an_unknown_one_are_still_named():
    table = DocumentFrequencies.from_references(REFERENCES)
    with pytest.raises(DataError, match="'d' has no reference"):
        CiderD(REFERENCES | {"d": []}, table)
    with pytest.raises(DataError, match="'a' has no references"):
        CiderD({"c": REFERENCES["c"]}, table).score(["a"], ["a dog"])
    assert CiderD({}, table).score([], []).shape == (0,)


@given(st.lists(st.lists(st.text(alphabet="ab\0 ,", max_size=4), max_size=3), min_size=2, max_size=2))
@settings(max_examples=200, deadline=None)
def test_digests_tell_lists_of_captions_apart(lists):
    first, second = caption_digests(dict(enumerate(lists)))
    assert (first == second) == (lists[0] == lists[1])
