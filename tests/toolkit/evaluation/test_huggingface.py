"""The modules load through `evaluate` and give the numbers of the metrics themselves."""

from __future__ import annotations

import pytest

from toolkit.errors import DataError, UsageError
from toolkit.evaluation.huggingface import module_path
from toolkit.metrics import CiderD, DocumentFrequencies, score_captions, vqa_accuracy

evaluate = pytest.importorskip("evaluate")

CAPTIONS = ["a dog is running", "A blue bus.", ""]
REFERENCES = [["a dog runs", "the dog is running"], ["a red bus"], ["two cats", "cats on a couch", "a couch"]]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """`evaluate` copies scripts there; Python finds their package once, so the tests share one place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield


def load(name, tmp_path):
    return evaluate.load(module_path(name), cache_dir=str(tmp_path / "cache"))


def test_cider(tmp_path):
    found = load("cider", tmp_path).compute(predictions=CAPTIONS, references=REFERENCES, per_caption=True)
    expected = score_captions(dict(enumerate(REFERENCES)), dict(enumerate(CAPTIONS)), ["cider"])
    assert found["cider"] == pytest.approx(expected.corpus["cider"], rel=1e-12)
    assert found["cider_scores"] == pytest.approx([expected.per_image[k]["cider"] for k in range(3)])


def test_cider_with_a_table(tmp_path):
    table = DocumentFrequencies.from_references(dict(enumerate(REFERENCES[:2])) | {9: ["a zebra"]})
    table.save(tmp_path / "df.safetensors")
    module = load("cider", tmp_path)
    found = module.compute(
        predictions=CAPTIONS, references=REFERENCES, document_frequencies=str(tmp_path / "df.safetensors")
    )
    expected = CiderD(dict(enumerate(REFERENCES)), table).score([0, 1, 2], CAPTIONS).mean()
    assert found == {"cider": pytest.approx(expected, rel=1e-12)}
    with pytest.raises(DataError, match="cannot be read"):
        module.compute(predictions=CAPTIONS, references=REFERENCES, document_frequencies="none.safetensors")


def test_vqa_accuracy(tmp_path):
    answers, annotators = ["Yes", "the 2"], [["yes"] * 6 + ["no"] * 4, ["two"] * 3 + ["three"] * 7]
    module = load("vqa_accuracy", tmp_path)
    for rule in ("official", "exact"):
        found = module.compute(predictions=answers, references=annotators, rule=rule, per_question=True)
        each = [vqa_accuracy(a, b, rule=rule) for a, b in zip(answers, annotators, strict=True)]
        assert found["vqa_accuracies"] == each
        assert found["vqa_accuracy"] == pytest.approx(sum(each) / 2)
    with pytest.raises(UsageError, match="unknown"):
        module.compute(predictions=answers, references=annotators, rule="none")


def test_unknown_module():
    with pytest.raises(UsageError, match="bleurt"):
        module_path("bleurt")
