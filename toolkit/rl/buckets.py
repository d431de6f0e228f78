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
    """As ``buckets``, with the rows of a run kept together: they share a prompt, whose forward they are to share.

    Args:
        lengths: of each row.
        runs: row numbers in runs of neighbours; with fewer runs than groups they are not kept together.
        count: groups.
    """
    if len(runs) < count:
        return buckets(lengths, count)
    whole = [sum(lengths[row] for row in run) for run in runs]
    return [[row for run in group for row in runs[run]] for group in buckets(whole, count)]
