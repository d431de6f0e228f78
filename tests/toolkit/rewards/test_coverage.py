"""Rows that no term could score are told before a model is loaded."""

from __future__ import annotations

import pytest

from toolkit.config.schema import RewardTerm
from toolkit.errors import DataError
from toolkit.records import PromptRow, image_prompt
from toolkit.rewards.coverage import refuse_unscored_tasks


def rows(*tasks: str) -> list[PromptRow]:
    return [
        PromptRow(
            sample_id=f"r{i}", task=task, prompt=image_prompt("?"), images=(b"",), image_id=i,
            references=("a",) if task == "caption" else (), answers=("a",) if task == "vqa" else (),
        )
        for i, task in enumerate(tasks)
    ]  # fmt: skip


def test_a_task_without_a_term_is_refused_with_its_rows() -> None:
    terms = [RewardTerm(term="cider"), RewardTerm(term="length", tasks=["caption"])]
    refuse_unscored_tasks(terms, rows("caption", "caption"))
    with pytest.raises(DataError) as caught:
        refuse_unscored_tasks(terms, rows("caption", "vqa", "vqa", "vqa", "vqa"))
    assert "4 rows of task 'vqa' (r1, r2, r3, …) have no reward term" in str(caught.value)
    with pytest.raises(DataError, match="1 rows of task 'caption'"):
        refuse_unscored_tasks([RewardTerm(term="vqa_accuracy")], rows("caption"))


@pytest.mark.parametrize("term", ["learned", "http", "length", "mine.py:function"])
def test_terms_that_decide_row_by_row_serve_every_task(term: str) -> None:
    refuse_unscored_tasks([RewardTerm.model_validate({"term": term})], rows("caption", "vqa"))
