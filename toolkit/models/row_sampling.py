"""Samplers as logits processors: they leave one token of every row possible, and greedy decoding takes it.

``RowSampler`` gives every row random numbers of its own: the same completion in any batch, on any number of processes.
``BatchSampler`` draws what ``torch.multinomial`` would draw for the whole batch, whichever rows of it are left.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

__all__ = ["BatchSampler", "RowSampler"]


class RowSampler(LogitsProcessor):
    """Draws each row's next token with that row's own random number and leaves no other token possible.

    Used with greedy decoding, after all other processors. The draw is by the inverse of the cumulative distribution:
    one uniform number a token, drawn beforehand from a generator of the row's seed. Logits of a row differ by rounding
    from batch to batch, so a token may differ where the number falls on the border of two (about one in a million).

    Args:
        seeds: one a row of the batch.
        max_new_tokens: the most tokens a row will get.
        temperature: what logits are divided by.
    """

    def __init__(self, seeds: Sequence[int], *, max_new_tokens: int, temperature: float) -> None:
        self.temperature = temperature
        # 24 random bits: times a sum of probabilities in double precision they never round up to that sum.
        self._numbers = torch.stack(
            [torch.rand(max_new_tokens, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        ).double()
        self._start: int | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """0 at the drawn token, minus infinity elsewhere; ``scores`` are the logits ``(B, V)``."""
        self._start = input_ids.shape[1] if self._start is None else self._start
        step = input_ids.shape[1] - self._start
        probabilities = torch.softmax(scores.float() / self.temperature, dim=-1).double()
        cumulative = probabilities.cumsum(dim=-1)
        aim = self._numbers[:, step, None].to(scores.device) * cumulative[:, -1:]
        # Strictly above the aim: a token of probability 0 adds nothing and is stepped over.
        chosen = torch.searchsorted(cumulative, aim, right=True)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)

    def keep(self, rows: Tensor) -> None:
        """The batch holds only these of its rows from now on."""
        self._numbers = self._numbers[rows.to(self._numbers.device)]


class BatchSampler(LogitsProcessor):
    """Draws as ``torch.multinomial`` does, by the global generator, but for some rows of a batch only.

    It takes the index of the largest p / q with q from the exponential distribution, one for every token of every row.
    Numbers are drawn for the rows that have left too: those that stay get what they would have got.

    Args:
        rows: of the whole batch.
        temperature: what logits are divided by.
        device: of the logits.
    """

    def __init__(self, rows: int, *, temperature: float, device: torch.device) -> None:
        self.temperature = temperature
        self._size = rows
        self._rows = torch.arange(rows, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """0 at the drawn token, minus infinity elsewhere; ``scores`` are the logits ``(B, V)``."""
        probabilities = torch.softmax(scores / self.temperature, dim=-1)
        noise = probabilities.new_empty(self._size, scores.shape[1]).exponential_()
        chosen = (probabilities / noise[self._rows]).argmax(dim=-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)

    def keep(self, rows: Tensor) -> None:
        """The batch holds only these of its rows from now on."""
        self._rows = self._rows[rows]
