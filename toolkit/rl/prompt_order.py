"""Which prompts an iteration takes: a function of the seed and the iteration, so there is no position to store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolkit.records import PromptRow
from toolkit.rl.rollout import derived_seed

__all__ = ["PromptOrder"]


class PromptOrder:
    """An endless stream of shuffled epochs over ``rows``, cut into iterations of ``size`` prompts."""

    def __init__(self, rows: Sequence[PromptRow], size: int, *, seed: int) -> None:
        self.rows, self.size, self.seed = list(rows), size, seed
        self._orders: dict[int, list[int]] = {}

    def share(self, iteration: int, *, rank: int = 0, world: int = 1) -> list[PromptRow]:
        """The rows of ``iteration`` (from 0) that process ``rank`` of ``world`` takes, in order.

        The shares of all processes one after the other are what one process would take.
        """
        return [self.rows[self._number(place)] for place in self._places(iteration, rank, world)]

    def draws(self, iteration: int, *, samples: int, rank: int = 0, world: int = 1) -> list[int]:
        """A seed for each of the ``samples`` completions of each row of ``share``, all of one row together.

        A function of the run's seed, the row's task and sample id, the epoch and the completion's number alone.
        """
        seeds = []
        for place in self._places(iteration, rank, world):
            row, epoch = self.rows[self._number(place)], place // len(self.rows)
            seeds += [
                derived_seed(self.seed, "draw", row.task, row.sample_id, epoch, number)
                for number in range(samples)
            ]
        return seeds

    def _places(self, iteration: int, rank: int, world: int) -> range:
        length = self.size // world
        start = iteration * self.size + rank * length
        return range(start, start + length)

    def _number(self, place: int) -> int:
        epoch, offset = divmod(place, len(self.rows))
        if epoch not in self._orders:
            generator = np.random.default_rng(derived_seed(self.seed, "epoch", epoch))
            # An iteration touches few epochs, and they only move on.
            self._orders = {key: self._orders[key] for key in self._orders if key >= epoch - 1}
            self._orders[epoch] = generator.permutation(len(self.rows)).tolist()
        return self._orders[epoch][offset]
