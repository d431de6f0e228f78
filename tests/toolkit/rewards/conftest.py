"""Rows and batches that the reward tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from toolkit.records import PromptRow, Task, image_prompt
from toolkit.rewards.base import RewardBatch

REFERENCES = (
    "a red circle above a blue square",
    "a blue square below a red circle",
    "the red circle is over the blue square",
)


def make_row(sample_id: str, task: Task = "caption") -> PromptRow:
    """A caption row with three references, or a VQA row with ten answers of which seven agree."""
    return PromptRow(
        sample_id=sample_id,
        task=task,
        prompt=image_prompt("Describe the image." if task == "caption" else "What colour is the circle?"),
        images=(b"",),
        image_id=sample_id,
        references=REFERENCES if task == "caption" else (),
        answers=("red",) * 7 + ("blue",) * 2 + ("orange",) if task == "vqa" else (),
        meta={"difficulty": len(sample_id)},
    )


def make_batch(
    completions: Sequence[str],
    *,
    sample_ids: Sequence[str] | None = None,
    tasks: Sequence[Task] | None = None,
    ended: Sequence[bool] | None = None,
) -> RewardBatch:
    """A batch of these completions; by default every one is an ended caption of its own row."""
    size = len(completions)
    ids = sample_ids or [f"row{index}" for index in range(size)]
    return RewardBatch(
        rows=[make_row(i, t) for i, t in zip(ids, tasks or ["caption"] * size, strict=True)],
        completions=list(completions),
        ended=list(ended) if ended is not None else [True] * size,
        num_tokens=[len(text.split()) + 1 for text in completions],
    )


@pytest.fixture
def batch_of() -> Callable[..., RewardBatch]:
    """``make_batch`` as a fixture."""
    return make_batch
