"""Which tasks a reward can say anything about, known before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.config.schema import RewardTerm
from toolkit.errors import DataError
from toolkit.records import PromptRow

__all__ = ["refuse_unscored_tasks"]

_SHOWN = 3
# Terms that look at one task alone, whatever the recipe says; the others decide row by row.
_ONLY = {
    **dict.fromkeys(("cider", "bleu", "chair", "object_recall", "clipscore"), "caption"),
    "vqa_accuracy": "vqa",
}


def refuse_unscored_tasks(terms: Sequence[RewardTerm], rows: Sequence[PromptRow]) -> None:
    """All tasks among ``rows`` have a term that may score them.

    Raises:
        DataError: some have none; names how many rows, and the first ones.
    """
    problems = []
    for task in sorted({row.task for row in rows}):
        if any(_serves(term, task) for term in terms):
            continue
        mine = [row.sample_id for row in rows if row.task == task]
        shown = ", ".join(mine[:_SHOWN]) + (", …" if len(mine) > _SHOWN else "")
        problems.append(f"{len(mine)} rows of task '{task}' ({shown}) have no reward term")
    if problems:
        raise DataError(
            "data.train",
            problems,
            remedy="add a term for this task, or leave its rows out; a row with answers is a question ('vqa')",
        )


def _serves(term: RewardTerm, task: str) -> bool:
    wanted = term.tasks is None or task in term.tasks
    return wanted and _ONLY.get(term.term, task) == task
