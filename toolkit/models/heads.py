"""Scalar heads of value and reward models, in float32 whatever the model's precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ScalarHead", "pool_last"]


class ScalarHead(nn.Module):
    """One number for each hidden state: (…, hidden) → (…,).

    Args:
        hidden: width of the hidden states.
        init_std: standard deviation of the initial weights; zero makes every first value exactly 0.
    """

    def __init__(self, hidden: int, *, init_std: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, 1, dtype=torch.float32)
        nn.init.normal_(self.linear.weight, std=init_std) if init_std else nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Values of shape ``hidden_states.shape[:-1]``, in the head's own dtype."""
        return self.linear(hidden_states.to(self.linear.weight.dtype)).squeeze(-1)


def pool_last(hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
    """(B, hidden): the state of each row's last attended token, on either padding side.

    Args:
        hidden_states: (B, L, hidden).
        attention_mask: (B, L), non-zero on tokens; every row has at least one.
    """
    positions = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    last = (attention_mask.bool() * positions).argmax(dim=1)
    return hidden_states[torch.arange(len(last), device=last.device), last]
