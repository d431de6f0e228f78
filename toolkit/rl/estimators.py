"""Advantages without a critic: one number a completion, from a baseline that does not depend on that completion.

``returns`` ``(B,)`` are whole-completion returns: the score minus the KL penalty of all its tokens. ``usable``
``(B,)`` is False where the reward failed; such rows are 0 in the result and count in nobody's baseline. The
samples of one prompt stand together, ``group`` of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from toolkit.rl.advantages import Reduce

__all__ = ["RunningBaseline", "completion_returns", "grpo", "over_tokens", "rloo"]

# Added to the group's deviation, as in TRL and in the code of DeepSeekMath: a group of almost equal scores must
# not turn rounding into large advantages.
GRPO_EPSILON = 1e-4


def completion_returns(scores: Tensor, kl: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """``(B,)``: the score minus ``coefficient`` × the k1 estimate of the completion's KL, in nats."""
    return scores - coefficient * (kl * mask).sum(dim=1).to(scores.dtype)


def rloo(returns: Tensor, usable: Tensor, *, group: int) -> Tensor:
    """The return minus the mean of the *other* samples of its prompt (Kool et al. 2019; Ahmadian et al. 2024).

    A sample without others is 0: there is nothing to compare it with.
    """
    values, weights = _grouped(returns, usable, group)
    others = weights.sum(1, keepdim=True) - weights
    mean_of_others = ((values * weights).sum(1, keepdim=True) - values * weights) / others.clamp(min=1.0)
    return _flat((values - mean_of_others) * weights * (others > 0), returns)


def grpo(returns: Tensor, usable: Tensor, *, group: int) -> Tensor:
    """The return standardised within the samples of its prompt (Shao et al. 2024, section 4.1.1).

    The deviation is that of a sample (``n - 1``). Equal returns, and a sample without others, are 0. Unlike the
    paper the KL penalty is inside the return, as for every estimator here, and not a term of the loss.
    """
    values, weights = _grouped(returns, usable, group)
    count = weights.sum(1, keepdim=True)
    centred = (values - (values * weights).sum(1, keepdim=True) / count.clamp(min=1.0)) * weights
    deviation = (centred.square().sum(1, keepdim=True) / (count - 1.0).clamp(min=1.0)).sqrt()
    return _flat(centred / (deviation + GRPO_EPSILON), returns)


def over_tokens(advantages: Tensor, mask: Tensor) -> Tensor:
    """``(B, T)``: every sampled token gets its completion's advantage; 0 on padding."""
    return advantages[:, None] * mask


class RunningBaseline:
    """A moving average of the mean return of an iteration, one a task (REINFORCE with a baseline, Williams 1992).

    ``decay`` is the weight of the past. The first iteration of a task is compared with its own mean.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._means: dict[str, float] = {}

    def __call__(self, returns: Tensor, usable: Tensor, tasks: Sequence[str], *, reduce: Reduce) -> Tensor:
        """Advantages ``(B,)``, then take the returns in. Every process must call it the same number of times."""
        names = ("caption", "vqa")
        members = {
            name: usable & torch.tensor([task == name for task in tasks], device=usable.device)
            for name in names
        }
        sums = [[float(returns[members[name]].double().sum()), float(members[name].sum())] for name in names]
        totals = reduce(torch.tensor(sums, dtype=torch.float64)).tolist()
        advantages = torch.zeros_like(returns)
        for name, (total, count) in zip(names, totals, strict=True):
            if not count:
                continue
            mean = total / count
            before = self._means.get(name, mean)
            advantages[members[name]] = returns[members[name]] - before
            self._means[name] = self.decay * before + (1.0 - self.decay) * mean
        return advantages

    def state_dict(self) -> dict[str, float]:
        """Mean by task, for a checkpoint."""
        return dict(self._means)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """From a checkpoint."""
        self._means = {name: float(mean) for name, mean in state.items()}


def _grouped(returns: Tensor, usable: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Values (0 where unusable) and weights, ``(B / group, group)`` in float64."""
    values = torch.where(usable, returns, 0.0).to(torch.float64)
    return values.reshape(-1, group), usable.to(torch.float64).reshape(-1, group)


def _flat(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1).to(like.dtype)
