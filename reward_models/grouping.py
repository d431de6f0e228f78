"""Completions sorted by what they answer: those to one prompt and pictures are scored behind one copy of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from toolkit.records import Conversation, ImageSource

__all__ = ["CompletionGroup", "batches", "group_completions"]


@dataclass(frozen=True)
class CompletionGroup:
    """Different completions to one prompt.

    Attributes:
        prompt: what was asked.
        images: its pictures.
        rows: the rows of each text, in the order of ``texts``; equal texts are scored once.
    """

    prompt: Conversation
    images: tuple[ImageSource, ...]
    rows: dict[str, list[int]] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """The different completions."""
        return list(self.rows)

    @property
    def size(self) -> int:
        """Characters of all texts: what the group's sequence grows with."""
        return sum(map(len, self.rows))


def group_completions(
    prompts: Sequence[Conversation],
    images: Sequence[tuple[ImageSource, ...]],
    keys: Sequence[tuple[str, ...]],
    completions: Sequence[str],
    *,
    most: int,
) -> list[CompletionGroup]:
    """Rows of equal prompt and pictures together, at most ``most`` different texts a group, short groups first.

    Neighbours of like length share little padding in a batch; the order changes no score.

    Args:
        prompts: one a row.
        images: pictures of each row's prompt.
        keys: what tells the pictures of a row from others; rows whose pictures look the same share it.
        completions: text of each row.
        most: 1 gives every text a group of its own.
    """
    groups: list[CompletionGroup] = []
    newest: dict[tuple[str, tuple[str, ...]], int] = {}
    for row, (prompt, pictures, seen, text) in enumerate(
        zip(prompts, images, keys, completions, strict=True)
    ):
        key = (json.dumps(list(prompt), sort_keys=True, default=str), seen)
        known = newest.get(key)
        if known is None or (text not in groups[known].rows and len(groups[known].rows) >= most):
            newest[key] = known = len(groups)
            groups.append(CompletionGroup(prompt, pictures))
        groups[known].rows.setdefault(text, []).append(row)
    return sorted(groups, key=lambda group: group.size)


def batches(groups: Sequence[CompletionGroup], size: int) -> Iterator[list[CompletionGroup]]:
    """Consecutive groups with at most ``size`` texts together (a group of more is a batch of its own)."""
    batch: list[CompletionGroup] = []
    for group in groups:
        if batch and sum(len(known.rows) for known in batch) + len(group.rows) > size:
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch
