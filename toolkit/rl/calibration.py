"""Before training: what the reward terms give for samples of the starting policy."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from toolkit.config.schema import RlRecipe
from toolkit.errors import RunFailed
from toolkit.records import PromptRow
from toolkit.rewards.base import RewardBatch
from toolkit.rewards.composite import CompositeReward
from toolkit.rl.engine import Engine
from toolkit.rl.rollout import RolloutWorker, derived_seed

__all__ = ["calibrate"]

logger = logging.getLogger("vlm_rlhf.rl")
Report = dict[str, dict[str, float]]


def calibrate(
    reward: CompositeReward, worker: RolloutWorker, rows: Sequence[PromptRow], recipe: RlRecipe
) -> Report:
    """Sample at least ``guards.calibration_samples`` completions of ``rows`` and measure every term on them.

    Fewer rows than that give several completions each: a rarely earned reward looks constant on a handful.
    Fixes the statistics of ``frozen`` terms. Every process draws the same samples; the global generators are
    not touched. Returns count, mean, std and failed fraction a term and task.

    Raises:
        RunFailed: a term would teach nothing.
    """
    seed = recipe.run.seed
    order = np.random.default_rng(derived_seed(seed, "calibration")).permutation(len(rows))
    chosen = [rows[index] for index in order[: recipe.guards.calibration_samples]]
    samples = math.ceil(recipe.guards.calibration_samples / len(chosen))
    drawn = derived_seed(seed, "calibration", "sample")
    prompts, completions = worker.sample(chosen, seed=drawn, samples=samples, alike=True)
    every_row = [row for row in chosen for _ in range(samples)]
    report = _agreed(reward, worker.reward_batch(every_row, prompts, completions), worker.engine)
    _refuse_failures(report, reward, recipe.guards.failed_fraction_max)
    for name, row in report.items():
        logger.info("%s: mean %.3f, std %.3f on %d samples", name, row["mean"], row["std"], row["count"])
    return report


def _refuse_failures(report: Report, reward: CompositeReward, limit: float) -> None:
    """As many failures as would end an iteration end the run before the first."""
    watched = {term.name for term in reward.terms if term.spec.weight == 0.0}
    failed = []
    for name, row in report.items():
        if row["failed_fraction"] <= limit:
            continue
        line = f"{name} failed on {row['failed_fraction']:.0%} of the calibration samples"
        if name.rpartition("/")[0] in watched:
            logger.warning("%s; it weighs 0 and is only watched", line)
        else:
            failed.append(line)
    if failed:
        raise RunFailed(
            "; ".join(failed) + f", more than guards.failed_fraction_max {limit:.1%}",
            remedy="find out why (the service's log, the function), or raise the limit: failed rows train nothing",
        )


def _agreed(reward: CompositeReward, batch: RewardBatch, engine: Engine) -> Report:
    """What the first process measures, on all: a judge that answers each of them otherwise would split their scales."""
    found: Report | RunFailed
    try:
        found = reward.calibrate(batch)
    except RunFailed as error:
        found = error
    found, state = engine.agreed((found, reward.state_dict()))
    if isinstance(found, RunFailed):
        raise found
    reward.load_state_dict(state)
    return found
