"""The PPO loop, in the numbered phases of docs/ppo.md.

1 sample · 2 mark ends · 3 log-probabilities of behaviour and reference · 4 values · 5 rewards · 6 KL and
shaped reward · 7 advantages · 8 epochs of minibatches · 9 KL controller, monitors, log, checkpoint.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from toolkit.config.schema import PpoSpec, RlRecipe
from toolkit.errors import RunFailed
from toolkit.models.loading import LoadedVlm
from toolkit.models.roles import POLICY, REFERENCE, copy_role, role
from toolkit.records import PromptRow
from toolkit.rewards.composite import CompositeReward
from toolkit.rewards.held_out import HeldOut
from toolkit.rl import guards
from toolkit.rl.appraisal import Appraisal
from toolkit.rl.best import BestPolicy
from toolkit.rl.calibration import calibrate
from toolkit.rl.engine import Engine
from toolkit.rl.guard_rails import GuardRails
from toolkit.rl.kl import kl_controller
from toolkit.rl.memory import out_of_memory
from toolkit.rl.monitor import iteration_numbers, progress_note, write_samples
from toolkit.rl.policy_value import build_policy_value
from toolkit.rl.prompt_order import PromptOrder
from toolkit.rl.rollout import Rollout, RolloutWorker, derived_seed
from toolkit.rl.sampler_agreement import in_agreement
from toolkit.rl.sizes import batch_sizes, check_sizes
from toolkit.rl.state import STATE_FILE, load_checkpoint, save_checkpoint
from toolkit.rl.unfinished import Unfinished
from toolkit.rl.update import Updater, UpdateStatistics
from toolkit.rl.vllm_sampler import SamplerFailed, open_sampler
from toolkit.runs.directory import RunDirectory
from toolkit.runs.memory import ran_out_of_memory
from toolkit.runs.progress import Progress
from toolkit.runs.trackers import Trackers, open_trackers

__all__ = ["Evaluate", "PpoTrainer"]

logger = logging.getLogger("vlm_rlhf.rl")

Evaluate = Callable[[LoadedVlm], HeldOut | Mapping[str, float]]


class PpoTrainer:
    """Proximal policy optimisation of a vision-language model on a composite reward.

    Args:
        policy: the SFT policy with its adapter, trainable. The reference is a frozen copy of it as it is now.
        reward: the composite; learned terms are inside.
        rows: training prompts with what they are scored against.
        val_rows: validation prompts, for calibration and frozen statistics; may be empty, then training
            prompts are used and nothing is held out.
        recipe: the settings.
        run: where results go; its ``stop`` flag is asked before every minibatch and after every iteration.
        evaluate: held-out evaluation, called with the policy active every ``run.eval_every_steps`` iterations on
            every process; its numbers are logged under ``val/``. It must not draw from the global generators. Scores
            standardised as in ``HeldOut`` are watched for divergence; the best policy is kept in ``best/``.

    Raises:
        RecipeError: sizes that cannot be split into minibatches, or a model without an adapter.
    """

    def __init__(
        self,
        policy: LoadedVlm,
        reward: CompositeReward,
        rows: Sequence[PromptRow],
        val_rows: Sequence[PromptRow],
        recipe: RlRecipe,
        run: RunDirectory,
        evaluate: Evaluate | None = None,
    ) -> None:
        self.vlm, self.reward, self.recipe, self.run, self.evaluate = policy, reward, recipe, run, evaluate
        self.rows, self.val_rows = list(rows), list(val_rows)
        if not self.val_rows:
            logger.warning("no validation data: the reward is calibrated on training prompts")
        ppo, rollout = recipe.ppo, recipe.rollout
        critic = ppo.critic if ppo.estimator == "gae" else None
        module = build_policy_value(policy, critic=critic, seed=derived_seed(recipe.run.seed, "critic"))
        self.engine = Engine(module, recipe.optimizer, **batch_sizes(recipe))
        check_sizes(recipe, rows=len(self.rows), world=self.engine.world, zero_stage=self.engine.zero_stage)
        self.kl = kl_controller(recipe.kl)
        sampler = open_sampler(policy, self.engine, recipe, run.path)
        self.worker = RolloutWorker(policy, self.engine, rollout, sampler)
        self.updater = Updater(self.worker, self.engine, recipe)
        self.order = PromptOrder(rows, recipe.rollout.prompts_per_iteration, seed=recipe.run.seed)
        self.iteration = 0
        self._unfinished: Unfinished | None = None
        self.trackers = Trackers([])
        self.appraisal = Appraisal(reward, self.worker, self.engine, recipe)
        self.rails = GuardRails(recipe.guards)
        required = ppo.final == "best" or ppo.best_metric != PpoSpec().best_metric
        self.best = BestPolicy(run.path / "best", metric=ppo.best_metric, required=required)

    def train(self, resume: bool = False) -> None:
        """Run to the end and write ``final/``; with ``resume`` from the newest checkpoint, if there is one.

        Raises:
            RunFailed: a guard rail stopped the run (a checkpoint was written), the reward teaches nothing, memory ran
                out, or a checkpoint could not be written (the one before stays).
            Interrupted: a signal arrived; a checkpoint was written.
        """
        spec, config = self.recipe.run, self.recipe.model_dump(mode="json")
        with open_trackers(spec.report_to, self.run.path, config=config) as self.trackers, self.worker:
            try:
                self._train(resume)
            except (RuntimeError, MemoryError) as error:
                if not ran_out_of_memory(error):
                    raise
                raise out_of_memory(error, self.engine, self.recipe, self.iteration, self.reward) from error

    def _train(self, resume: bool) -> None:
        newest = self.run.latest_checkpoint(required=[STATE_FILE]) if resume else None
        if newest is None:
            self.run.metrics.truncate_after(-1)
            rows = self.val_rows or self.rows
            self.run.record(reward_calibration=calibrate(self.reward, self.worker, rows, self.recipe))
            self._evaluate(0)
        else:
            self._restore(load_checkpoint(newest, self.vlm, self.engine))
            logger.info("resumed from %s", newest)
        iterations = self.recipe.ppo.iterations
        with Progress(iterations, "ppo", start=self.iteration) as bar:
            while self.iteration < iterations:
                bar.update(note=self._iterate())
        facts = self.best.write_final(
            self.run.final, self.vlm, self.engine, choice=self.recipe.ppo.final, iteration=self.iteration
        )
        self.run.record(final_policy=facts)

    def _iterate(self) -> str:
        """One iteration; returns what the progress line says."""
        seed = derived_seed(self.recipe.run.seed, "iteration", self.iteration)
        began, kept = time.perf_counter(), self.appraisal.state_dict()
        try:
            work, self._unfinished = self._unfinished or self._experience(seed), None  # 1-7
        except Exception as error:  # of a reward, say: the iterations before it are not lost
            self.appraisal.load_state_dict(kept)  # the iteration will be done again: nothing of it counts yet
            together = isinstance(error, SamplerFailed | guards.RewardsFailed)
            if together or (self.iteration and self.engine.world == 1):
                self._save(self.iteration)
            raise
        rewarded = time.perf_counter()
        work.statistics = self._update(work, seed=seed, first=self.iteration == 0)  # 8
        if work.statistics.broken_off:
            self._break_off(work)
        seconds = {"update": time.perf_counter() - rewarded, "iteration": time.perf_counter() - began}
        return self._finish(work, {**work.experience.rollout.seconds, **seconds})  # 9

    def _experience(self, seed: int) -> Unfinished:
        """Phases 1 to 7, with the check of the start."""
        progress = self.iteration / max(1, self.recipe.ppo.iterations - 1)
        self.worker.set_progress(progress)
        rollout = self._collect(seed)
        began = time.perf_counter()
        output = self.appraisal.rewards(rollout, progress=progress)
        experience = self.appraisal.experience(rollout, output, kl_coefficient=self.kl.coefficient)
        if self.iteration == 0:
            guards.check_start(self.vlm, float(experience.kl_k1.abs().max()))
        rollout.seconds["reward"] = time.perf_counter() - began
        watched = self._logged(self.iteration + 1) and self.recipe.guards.vision_gap_action != "off"
        gap = guards.vision_gap(self.worker, rollout) if watched else None  # before the weights move
        return Unfinished(experience, output, UpdateStatistics(), gap)

    def _logged(self, step: int) -> bool:
        """Whether the numbers of iteration ``step`` (from 1) are written."""
        return step in (1, self.recipe.ppo.iterations) or step % self.recipe.run.log_every_steps == 0

    def _collect(self, seed: int) -> Rollout:
        """Phases 1 to 4 on this process's share of the iteration's prompts."""
        own, spec, seed = None, self.recipe.rollout, derived_seed(seed, "sample", self.engine.rank)
        if spec.draws == "row":
            ranks = {"rank": self.engine.rank, "world": self.engine.world}
            own = self.order.draws(self.iteration, samples=spec.samples_per_prompt, **ranks)
        rollout = self.worker.collect(self._rows(), seed=seed, row_seeds=own, sampled=self.appraisal.begin)
        return in_agreement(rollout, self.engine, spec)

    def _rows(self) -> list[PromptRow]:
        """The iteration's prompts of this process."""
        return self.order.share(self.iteration, rank=self.engine.rank, world=self.engine.world)

    def _update(self, work: Unfinished, *, seed: int, first: bool) -> UpdateStatistics:
        """Phase 8, with the checks of the first update."""
        self.engine.anneal(self.iteration, self.recipe.ppo.iterations)
        update = functools.partial(
            self.updater.update,
            work.experience,
            seed=derived_seed(seed, "minibatches"),
            warming_up=self.iteration < self.recipe.ppo.critic_warmup_iterations,
            statistics=work.statistics,
            stop=lambda: self.engine.anywhere(self.run.stop.requested),
        )
        if not first:
            return update()
        with self.engine.watch_gradients() as seen:
            statistics = update()
        if not statistics.broken_off:
            missing = [name for name in self.engine.trainable_names() if name not in seen]
            guards.check_first_update(self.vlm, statistics.first_ratio_error or 0.0, missing=missing)
        return statistics

    def _finish(self, work: Unfinished, seconds: Mapping[str, float]) -> str:
        """Phase 9: controller, metrics, samples, held-out evaluation, guard rails, checkpoint, signals."""
        step, spec, rollout = self.iteration + 1, self.recipe.run, work.experience.rollout
        last, logged = step == self.recipe.ppo.iterations, self._logged(step)
        values = iteration_numbers(
            self.engine, work.experience, work.output, work.statistics,
            group=self.recipe.rollout.samples_per_prompt, gap=work.gap,
        )  # fmt: skip
        values["kl/coefficient"] = self.kl.coefficient
        completions = len(rollout) * self.engine.world
        self.kl.update(values["kl/k1_nats"], completions)
        self.iteration = step
        every = self.recipe.kl.refresh_reference_every_iterations
        if every and step % every == 0:
            copy_role(self.vlm.model, POLICY, REFERENCE)
        if logged:
            self._log(step, values | {f"time/{name}_seconds": value for name, value in seconds.items()})
            if self.engine.is_main:
                write_samples(self.run.samples, step, work.experience, work.output, self.trackers)
        reasons = [
            guards.check_vision_gap(values.get("guard/vision_gap_nats", math.nan), self.recipe.guards),
            self.rails.observe(values),
        ]
        if spec.eval_every_steps and (step % spec.eval_every_steps == 0 or last):
            reasons.append(self._evaluate(step))
        self._close(step, next((text for text in reasons if text is not None), None), last=last)
        return progress_note(values, self.best.newest, completions=completions, seconds=seconds["iteration"])

    def _close(self, step: int, reason: str | None, *, last: bool) -> None:
        """Checkpoint and signals at the end of an iteration; ``reason`` is that of a guard rail to stop."""
        signalled = self.engine.anywhere(self.run.stop.requested)
        every = self.recipe.run.save_every_steps
        if reason or (signalled and not last) or (every and step % every == 0 and not last):
            self._save(step)
        if reason:
            remedy = f"look at {self.run.samples}, then change the recipe{self.best.told()}"
            raise RunFailed(f"stopped after iteration {step}: {reason}", remedy=remedy)
        if signalled and not last:
            raise self.run.stop.interrupted(
                f"stopped after iteration {step} of {self.recipe.ppo.iterations}; --resume goes on from there"
            )

    def _break_off(self, work: Unfinished) -> NoReturn:
        """A checkpoint from which the iteration's remaining minibatches are done, and the end of the run."""
        self._save(self.iteration, work)
        where = f"iteration {self.iteration + 1} of {self.recipe.ppo.iterations}"
        raise self.run.stop.interrupted(
            f"stopped in {where}, after {work.statistics.updates} of its minibatches; --resume goes on from there"
        )

    def _evaluate(self, step: int) -> str | None:
        """Held-out numbers under ``val/``, on a line of their own; keeps the best policy. A guard rail's reason."""
        if self.evaluate is None or not self.recipe.run.eval_every_steps:
            return None
        with self.engine.gathered(), role(self.vlm.model, POLICY):
            found = self.engine.agreed(self.evaluate(self.vlm))
        held_out = found if isinstance(found, HeldOut) else HeldOut(found)
        self._log(step, {f"val/{name}": value for name, value in held_out.numbers.items()})
        self.best.consider(step, held_out.numbers, self.vlm, self.engine)
        return self.rails.observe_held_out(held_out.standardised)

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        """To ``metrics.jsonl`` and the recipe's trackers."""
        self.run.metrics.write(step, **values)
        self.trackers.log(step, **values)

    def _save(self, step: int, work: Unfinished | None = None) -> None:
        state: dict[str, Any] = {
            "iteration": self.iteration,
            "kl": self.kl.state_dict(),
            **self.appraisal.state_dict(),
            "rails": self.rails.state_dict(),
            "best": self.best.state_dict(),
        }
        refreshed = self.recipe.kl.refresh_reference_every_iterations is not None
        folder, unfinished = self.run.checkpoint_path(step), work.state_dict() if work else None
        save_checkpoint(folder, self.vlm, self.engine, state, reference=refreshed, unfinished=unfinished)
        self.run.prune_checkpoints(self.recipe.run.save_total_limit)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.iteration = int(state["iteration"])
        self.kl.load_state_dict(state["kl"])
        self.appraisal.load_state_dict(state)
        self.rails.load_state_dict(state.get("rails", {}))
        self.best.load_state_dict(state.get("best", {}))
        self.run.metrics.truncate_after(self.iteration)
        if "unfinished" in state:
            self._unfinished = Unfinished.from_state(state["unfinished"], self._rows(), self.worker)
