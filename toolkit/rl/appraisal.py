"""Phases 5 to 7 together: rewards, and from them what the update needs, by the recipe's estimator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolkit.config.schema import RlRecipe
from toolkit.rewards.base import FloatArray, RewardBatch, RewardOutput
from toolkit.rewards.composite import BegunBatch, CompositeReward
from toolkit.rl import estimators, guards
from toolkit.rl.engine import Engine
from toolkit.rl.experience import CriticFree, Experience, build_experience
from toolkit.rl.potentials import prefix_potentials
from toolkit.rl.rollout import Rollout, RolloutWorker
from toolkit.rl.sampler_agreement import importance_weighted

__all__ = ["Appraisal"]


class Appraisal:
    """Scores rollouts and estimates advantages; holds the reward's statistics and the running baseline.

    Args:
        reward: the composite; its running statistics are summed over the processes of ``engine``.
        worker: samples the greedy completions of ``scst``.
        engine: the processes.
        recipe: the settings.
    """

    def __init__(
        self, reward: CompositeReward, worker: RolloutWorker, engine: Engine, recipe: RlRecipe
    ) -> None:
        self.reward, self.worker, self.engine, self.recipe = reward, worker, engine, recipe
        self.baseline = estimators.RunningBaseline(recipe.ppo.baseline_decay)
        reward.all_reduce = self._sum_arrays
        self._begun: BegunBatch | None = None
        self._baseline: FloatArray | None = None  # of scst

    def begin(self, batch: RewardBatch) -> None:
        """Terms that need no model are scored from now on, while phases 3 and 4 compute."""
        self._begun = self.reward.begin(batch)

    def rewards(self, rollout: Rollout, *, progress: float) -> RewardOutput:
        """Phase 5: composite scores ``(B,)`` and their parts; ``progress`` (0 to 1) is what schedules read.

        Terms that ``begin`` handed out for this rollout are waited for, the others scored here. A row that no term
        says anything about has no score, and trains nothing; the log counts them.

        Raises:
            RewardsFailed: of too many rows the reward failed; the iteration is to be done again.
        """
        begun, self._begun = self._begun, None
        if begun is None:
            begun = BegunBatch(self.worker.reward_batch(rollout.rows, rollout.prompts, rollout.completions))
        self.reward.set_progress(progress)
        # Whole weights: a reward model on the policy's base does as many forwards as this process's rows ask for, and
        # under ZeRO-3 every forward of split weights has to be one of all processes.
        with self.engine.gathered():
            output = self.reward.finish(begun, update=True)
        if self.recipe.ppo.estimator == "scst":
            self._baseline = self._greedy_scores(rollout)
            # Without a baseline there is no advantage: the row is as little use as one whose reward failed.
            output = replace(output, scores=np.where(np.isfinite(self._baseline), output.scores, np.nan))
        self._refuse_failures(rollout, output)
        return output

    def _refuse_failures(self, rollout: Rollout, output: RewardOutput) -> None:
        """Before anything is trained on what is left: the optimizer's momentum moves weights without a gradient too."""
        counts = []
        for term in self.reward.terms:
            scored = [(term.name, row.task) in self.reward.calibration for row in rollout.rows]
            counts.append(float((output.failed & scored & ~np.isfinite(output.parts[term.name])).sum()))
        counts += [float(output.failed.sum()), float(len(output.scores))]
        *by_term, total, rows = self.engine.all_sum(torch.tensor(counts, dtype=torch.float64)).tolist()
        names = [term.name for term in self.reward.terms]
        failed = {**dict(zip(names, by_term, strict=True)), "total": total}
        guards.check_failed(failed, rows, self.recipe.guards)

    def experience(self, rollout: Rollout, output: RewardOutput, *, kl_coefficient: float) -> Experience:
        """Phases 6 and 7."""
        experience = build_experience(
            rollout,
            output,
            self.recipe.ppo,
            kl_coefficient=kl_coefficient,
            reduce=self.engine.all_sum,
            critic_free=self._estimator(rollout),
            potentials=self._potentials(rollout),
        )
        return importance_weighted(experience, self.recipe.rollout)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"reward": self.reward.state_dict(), "baseline": self.baseline.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint; one of an earlier version has no baseline."""
        self.reward.load_state_dict(state["reward"])
        self.baseline.load_state_dict(state.get("baseline", {}))

    def _estimator(self, rollout: Rollout) -> CriticFree | None:
        """The estimator of a run without a critic, with all it needs but returns and usable rows."""
        name, group = self.recipe.ppo.estimator, self.recipe.rollout.samples_per_prompt
        if name == "rloo":
            return lambda returns, usable: estimators.rloo(returns, usable, group=group)
        if name == "grpo":
            return lambda returns, usable: estimators.grpo(returns, usable, group=group)
        if name == "running":
            tasks = [row.task for row in rollout.rows]
            return lambda returns, usable: self.baseline(returns, usable, tasks, reduce=self.engine.all_sum)
        if name == "scst" and (baseline := self._baseline) is not None:
            return lambda returns, usable: torch.where(
                usable, returns - torch.as_tensor(baseline, dtype=returns.dtype, device=returns.device), 0.0
            )
        return None

    def _potentials(self, rollout: Rollout) -> Tensor | None:
        """Φ of the prefix before each token ``(B, T)``, where the recipe asks for dense shaping."""
        name, weight = self.recipe.ppo.potential_term, self.recipe.ppo.potential_weight
        if name is None:
            return None
        term = next(item for item in self.reward.terms if item.name == name)
        with self.engine.gathered():
            found = prefix_potentials(
                lambda batch: self.reward.raw(term, batch), rollout, self.worker.vlm.tokenizer
            )
        return weight * torch.from_numpy(found)

    def _greedy_scores(self, rollout: Rollout) -> FloatArray:
        """Scores ``(B,)`` of each prompt's greedy completion, the missing-end penalty paid (Rennie et al. 2017)."""
        samples = self.recipe.rollout.samples_per_prompt
        rows, prompts = rollout.rows[::samples], rollout.prompts[::samples]
        completions = self.worker.greedy(prompts)
        with self.engine.gathered():
            scores = self.reward(self.worker.reward_batch(rows, prompts, completions)).scores
        penalty = self.recipe.ppo.missing_eos_penalty
        cut = np.asarray([not item.ended for item in completions], dtype=np.float64)
        return np.repeat(scores - penalty * cut, samples)

    def _sum_arrays(self, values: FloatArray) -> FloatArray:
        return self.engine.all_sum(torch.from_numpy(values)).cpu().numpy()
