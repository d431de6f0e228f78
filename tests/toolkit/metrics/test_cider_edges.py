"""CIDEr-D where there is little to score."""

import pytest

from toolkit.metrics import CiderD, DocumentFrequencies


@pytest.mark.parametrize("captions", [["zzz qqq"], [""], ["zzz", "qqq zzz"]])
def test_captions_that_share_no_word_with_any_reference_score_zero(captions):
    """numpy counts an empty selection in integers; the division must not."""
    references = {1: ["a cat sat"], 2: ["a dog ran"]}
    scorer = CiderD(references, DocumentFrequencies.from_references(references))
    assert scorer.score([1] * len(captions), captions).tolist() == [0.0] * len(captions)
    assert scorer.score([], []).shape == (0,)
