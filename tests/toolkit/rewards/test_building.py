"""From recipe terms to a composite, with every mistake named at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from toolkit.config.reward_checks import OPTIONS, REQUIRED_OPTIONS
from toolkit.config.schema import RewardTerm
from toolkit.errors import RecipeError
from toolkit.metrics import DocumentFrequencies
from toolkit.rewards.base import RewardBatch, RewardOutput
from toolkit.rewards.building import END_TOKEN, TERM_NAMES, build_reward, option_names

Batches = Callable[..., RewardBatch]
REFERENCES = {"1": ["a red circle", "a circle"], "2": ["two crosses", "green crosses"]}


class Half:
    """A learned reward of one half for everything."""

    name, scale, may_be_constant = "half", "0.5", False
    background = False

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        return RewardOutput(np.full(len(batch), 0.5))


def terms(*specs: dict[str, object]) -> list[RewardTerm]:
    return [RewardTerm.model_validate(spec) for spec in specs]


def test_every_term_of_the_catalogue_builds(batch_of: Batches) -> None:
    reward = build_reward(
        terms(
            {"term": "cider"},
            {"term": "bleu", "options": {"order": 2}, "weight": 0.5},
            {"term": "vqa_accuracy", "options": {"rule": "simple"}},
            {"term": "learned", "model": "out/reward/final"},
            {"term": "length", "options": {"max_tokens": 4}},
            {"term": "repetition"},
            {"term": "bad_ending"},
        ),
        references=REFERENCES,
        learned={"out/reward/final": Half()},
    )
    output = reward(batch_of(["a red circle above a blue square", "red"], tasks=["caption", "vqa"]))
    assert output.parts["learned"].tolist() == [0.5, 0.5]
    assert np.isnan(output.parts["cider"][1])
    assert output.parts["vqa_accuracy"][1] == 1.0
    assert np.isfinite(output.scores).all()


def test_a_user_term_and_two_terms_of_one_kind(tmp_path: Path, batch_of: Batches) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def long(completions, **columns):\n    return [len(c[0]['content']) for c in completions]\n"
    )
    reward = build_reward(
        terms(
            {"term": f"{file}:long"},
            {"term": "bleu"},
            {"term": "bleu", "name": "bleu_1", "options": {"order": 1}},
        ),
        references={},
    )
    output = reward(batch_of(["a red circle above a blue square"]))
    assert output.parts["long"].tolist() == [32.0]
    assert set(output.parts) >= {"bleu", "bleu_1"}


def test_a_table_of_document_frequencies_from_a_file(tmp_path: Path, batch_of: Batches) -> None:
    path = tmp_path / "df.safetensors"
    DocumentFrequencies.from_references(REFERENCES, end_token=END_TOKEN).save(path)
    spec = {"term": "cider", "options": {"document_frequencies": str(path)}}
    from_file = build_reward(terms(spec), references={})
    from_data = build_reward(terms({"term": "cider"}), references=REFERENCES)
    batch = batch_of(["a red circle"])
    assert from_file(batch).scores.tolist() == from_data(batch).scores.tolist()


def test_all_mistakes_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        build_reward(
            terms(
                {"term": "cidre"},
                {"term": "bleu"},
                {"term": "bleu"},
                {"term": "length", "options": {"most": 3}},
                {"term": "repetition", "options": {"ngram": 0}},
                {"term": "learned", "model": "nowhere"},
                {"term": "cider"},
            ),
            references={},
        )
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 6
    for text in (
        "did you mean 'cider'?",
        "rewards.2.name: 'bleu' is taken",
        "unknown most; length takes min_tokens, max_tokens, per_tokens",
        "ngram >= 1",
        "found model: nowhere",
        "cider needs reference captions",
    ):
        assert text in problems


@pytest.mark.parametrize("term", sorted(set(TERM_NAMES) - {"learned", "cider"}))
def test_options_without_which_a_term_cannot_be_built_are_those_that_check_asks_for(term: str) -> None:
    required = list(REQUIRED_OPTIONS.get(term, {}))
    if not required:
        assert build_reward(terms({"term": term}), references={}).terms[0].name == term
        return
    with pytest.raises(RecipeError) as caught:
        build_reward(terms({"term": term}), references={})
    assert f"{term} needs {', '.join(required)}" in str(caught.value)


def test_options_of_the_terms_are_those_that_check_knows() -> None:
    assert {term: option_names(term) for term in TERM_NAMES} == OPTIONS
