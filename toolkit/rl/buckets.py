"""Rows of similar length share a forward: what a batch is padded to, its longest row says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

__all__ = ["buckets", "run_buckets"]


def buckets(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Row numbers in ``count`` groups of like lengths; group sizes differ by one at most.

    The longest rows come first, so that memory that does not suffice shows in the first forward. Rows of one length
    keep their order, and so do all rows of a single group.
    """
    if count == 1:
        return [list(range(len(lengths)))]
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    bounds = [len(order) * index // count for index in range(count + 1)]
    return [order[start:end] for start, end in pairwise(bounds)]


def run_buckets(lengths: Sequence[int], runs: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """As ``buckets``, the rows of a run beside one another: they share a prompt, whose forward they are to share.

    A run is cut where a group is full: group sizes, and with them memory, are those of ``buckets``.

    Args:
        lengths: of each row.
        runs: row numbers in runs of neighbours.
        count: groups.
    """
    longest = [max(lengths[row] for row in run) for run in runs]
    order = [row for run in sorted(range(len(runs)), key=lambda run: -longest[run]) for row in runs[run]]
    if count == 1:
        return [list(range(len(lengths)))]
    bounds = [len(order) * index // count for index in range(count + 1)]
    return [order[start:end] for start, end in pairwise(bounds)]
