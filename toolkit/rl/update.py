"""Phase 8: epochs of minibatches over one experience; one forward, one loss and one backward a micro batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from toolkit.config.schema import RlRecipe
from toolkit.errors import RunFailed
from toolkit.rl.engine import Engine
from toolkit.rl.experience import Experience
from toolkit.rl.losses import ValueLoss, clipped_policy_loss, clipped_value_loss
from toolkit.rl.rollout import RolloutWorker, derived_seed

__all__ = ["UpdateStatistics", "Updater", "minibatches"]


@dataclass
class UpdateStatistics:
    """Sums over all updates of an iteration, of this process, plus what is equal on every process.

    ``first_ratio_error`` is the largest ``|log ratio|`` of the first minibatch: 0 up to rounding, because
    nothing was updated yet. ``updates`` counts optimizer steps. ``broken_off``: a signal came before the last one.
    """

    sums: dict[str, float] = field(default_factory=dict)
    grad_norms: list[float] = field(default_factory=list)
    first_ratio_error: float | None = None
    updates: int = 0
    stopped_early: bool = False
    broken_off: bool = False

    def add(self, **values: float) -> None:
        """Add to the sums."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value


def minibatches(
    rows: int, count: int, *, world: int, rank: int, seed: int, group: int = 1
) -> list[list[int]]:
    """Row numbers of each minibatch on this process, for ``rows`` rows a process.

    The rows of all processes together are cut into strata, each is shuffled by itself and gives an equal
    share to every minibatch. Rows never leave their process, and a minibatch holds the same rows whether one
    process or several split it. Rows come in groups of ``group`` neighbours, which stay together where that leaves
    every minibatch an equal number of them.
    """
    if rows % group or (rows // group * world) % (count * world):
        group = 1
    units = rows // group
    total = units * world
    # Powers of two, so that one, two and four processes choose the same cut; a cut a process always fits.
    sizes = [size for size in (8, 4, 2, 1, world) if total % (size * count) == 0 and size % world == 0]
    strata = sizes[0]
    length = total // strata
    share = length // count
    chosen: list[list[int]] = [[] for _ in range(count)]
    for stratum in range(strata):
        generator = torch.Generator().manual_seed(derived_seed(seed, stratum))
        order = (torch.randperm(length, generator=generator) + stratum * length).tolist()
        for index in range(count):
            chosen[index] += order[index * share : (index + 1) * share]
    first, behind = rank * units, (rank + 1) * units
    return [
        [(unit - first) * group + row for unit in batch if first <= unit < behind for row in range(group)]
        for batch in chosen
    ]


class Updater:
    """Runs phase 8.

    Args:
        worker: joins rows into batches as it did when it scored them.
        engine: what steps.
        recipe: the settings.
    """

    def __init__(self, worker: RolloutWorker, engine: Engine, recipe: RlRecipe) -> None:
        self.worker, self.engine, self.recipe = worker, engine, recipe

    def update(
        self,
        experience: Experience,
        *,
        seed: int,
        warming_up: bool,
        statistics: UpdateStatistics | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> UpdateStatistics:
        """Epochs over the experience, ended early where the policy moved too far from the behaviour policy.

        ``stop`` is asked before every minibatch, and must say the same on all processes: the update is then
        ``broken_off``. With its ``statistics`` a later call goes on where it was.
        """
        limit = self.recipe.kl.stop_epochs_above_nats
        statistics = statistics or UpdateStatistics()
        self.engine.hold_policy(warming_up)
        for rows in self._schedule(len(experience.rollout), seed)[statistics.updates :]:
            if stop():
                statistics.broken_off = True
                return statistics
            nats = self._step(experience, rows, statistics, warming_up)
            if limit is not None and nats > limit:
                statistics.stopped_early = True
                return statistics
        return statistics

    def _schedule(self, rows: int, seed: int) -> list[list[int]]:
        """The minibatches of all epochs, in order."""
        spec, ranks = self.recipe.ppo, {"world": self.engine.world, "rank": self.engine.rank}
        group = self.recipe.rollout.samples_per_prompt if self.worker.shares else 1
        return [
            batch
            for epoch in range(spec.epochs)
            for batch in minibatches(
                rows, spec.minibatches, seed=derived_seed(seed, epoch), group=group, **ranks
            )
        ]

    def _step(
        self, experience: Experience, rows: list[int], statistics: UpdateStatistics, warming_up: bool
    ) -> float:
        """One optimizer step on ``rows``; returns KL(behaviour, policy) in nats a completion before it."""
        micro, rollout = self.recipe.ppo.gradient_accumulation, experience.rollout
        groups = self.worker.split(
            [rollout.prompts[i] for i in rows], [rollout.completions[i].token_ids for i in rows], micro
        )
        pieces = [[rows[place] for place in group] for group in groups]
        counts = torch.tensor([float(experience.mask[rows].sum()), float(len(rows))], dtype=torch.float64)
        tokens, completions = self.engine.all_sum(counts).tolist()
        before = statistics.sums.get("kl_k3", 0.0)
        losses = [
            self._loss_of(experience, piece, max(tokens, 1.0), statistics, warming_up) for piece in pieces
        ]
        norm = self.engine.step(losses)
        statistics.grad_norms.append(norm)
        statistics.updates += 1
        moved = torch.tensor(statistics.sums["kl_k3"] - before, dtype=torch.float64)
        return float(self.engine.all_sum(moved)) / completions

    def _loss_of(
        self,
        experience: Experience,
        rows: list[int],
        tokens: float,
        statistics: UpdateStatistics,
        warming_up: bool,
    ) -> Callable[[], Tensor]:
        """The loss of a micro batch, to be computed when its turn comes; ``tokens`` of the global minibatch."""

        def loss() -> Tensor:
            return self._loss(experience, rows, statistics, warming_up) / tokens

        return loss

    def _loss(
        self, experience: Experience, rows: list[int], statistics: UpdateStatistics, warming_up: bool
    ) -> Tensor:
        """Policy, entropy and (with a critic) value loss summed over the tokens of ``rows``."""
        spec, rollout = self.recipe.ppo, experience.rollout
        batch = self.worker.join(
            [rollout.prompts[i] for i in rows], [rollout.completions[i].token_ids for i in rows]
        )
        output = self.engine.prepared(
            batch,
            temperature=rollout.temperature,
            values=True,
            entropy=True,
            entropy_gradient=spec.entropy_weight > 0.0,
            head_only=warming_up,
        )
        if output.entropy is None:
            raise RunFailed("the policy's forward gave no entropy")
        width = output.logprobs.shape[1]
        mask, old, advantages = (
            part[rows, :width] for part in (experience.mask, rollout.logprobs, experience.advantages)
        )
        policy = clipped_policy_loss(output.logprobs, old, advantages, mask, clip=spec.clip)
        entropy = (output.entropy * mask).sum()
        if statistics.first_ratio_error is None:
            error = ((output.logprobs.detach() - old).abs() * mask).max()
            statistics.first_ratio_error = float(error)
        statistics.add(
            tokens=float(mask.sum()),
            completions=float(len(rows)),
            policy_loss=float(policy.loss.detach()),
            entropy=float(entropy.detach()),
            policy_clipped=float(policy.clipped),
            kl_k3=float(policy.kl_k3),
        )
        bonus = spec.entropy_weight * entropy
        if output.values is None:
            return policy.loss - bonus
        value = self._value_loss(experience, rows, output.values, mask)
        statistics.add(value_loss=float(value.loss.detach()), value_clipped=float(value.clipped))
        # In critic warm-up the policy's part keeps its place in the graph (every parameter gets a gradient,
        # as DDP expects) and weighs nothing.
        policy_weight = 0.0 if warming_up else 1.0
        return policy_weight * (policy.loss - bonus) + spec.value_weight * value.loss

    def _value_loss(self, experience: Experience, rows: list[int], values: Tensor, mask: Tensor) -> ValueLoss:
        """The critic's loss over ``rows``; ``values`` are those of this forward."""
        old, returns, width = experience.rollout.values, experience.returns, values.shape[1]
        if old is None or returns is None:
            raise RunFailed("a critic needs the values and returns of its rollout")
        clip = self.recipe.ppo.value_clip
        return clipped_value_loss(values, old[rows, :width], returns[rows, :width], mask, clip=clip)
