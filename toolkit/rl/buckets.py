"""Rows of similar length share a forward: what a batch is padded to, its longest row says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

__all__ = ["buckets"]


def buckets(
    lengths: Sequence[int], count: int, runs: Sequence[Sequence[int]] | None = None
) -> list[list[int]]:
    """Row numbers in ``count`` groups of like lengths; group sizes differ by one at most.

    The longest rows come first, so that memory that does not suffice shows in the first forward. Rows of one length
    keep their order, and so do all rows of a single group.

    Args:
        lengths: of each row.
        count: groups.
        runs: row numbers in runs of neighbours that stay beside one another, for they share a prompt, whose forward
            they are to share. A run is cut where a group is full, so that memory does not depend on runs.
    """
    if count == 1:
        return [list(range(len(lengths)))]
    units = [[row] for row in range(len(lengths))] if runs is None else runs
    order = [
        row for unit in sorted(units, key=lambda unit: -max(lengths[row] for row in unit)) for row in unit
    ]
    bounds = [len(order) * index // count for index in range(count + 1)]
    return [order[start:end] for start, end in pairwise(bounds)]
