"""A weighted sum of reward terms: raw score → normalise → clip → weight × schedule → sum.

Statistics are kept a term and task, because a question and a caption do not share a scale. Every stage of
every term is returned as a part, so that the log shows which term moved: ``<term>`` (raw),
``<term>/normalised``, ``<term>/weighted``; after a calibration ``total/calibrated`` is the sum on a scale that stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from toolkit.config.schema import RewardTerm
from toolkit.errors import CheckpointError, RunFailed
from toolkit.records import PromptRow
from toolkit.rewards.base import BoolArray, FloatArray, Reward, RewardBatch, RewardOutput
from toolkit.rewards.calibrated import calibrated_total, verdict
from toolkit.rewards.normalisation import Moments, normalise_in_groups
from toolkit.runs.threads import started

__all__ = ["BegunBatch", "CompositeReward", "CompositeTerm"]

Schedule = Literal["constant", "linear_up", "linear_down"]


@dataclass(frozen=True, slots=True)
class CompositeTerm:
    """A reward and how it enters the sum. ``name`` is unique within the composite."""

    name: str
    reward: Reward
    spec: RewardTerm


@dataclass(frozen=True, slots=True)
class BegunBatch:
    """A batch of which some terms' raw scores are on their way already, by the term's name."""

    batch: RewardBatch
    coming: Mapping[str, Future[RewardOutput]] = field(default_factory=dict)


class CompositeReward:
    """The sum of its terms. ``scores`` is NaN in rows where a term failed: such a row must not be trained on.

    Args:
        terms: the terms, with unique names.
        all_reduce: sums an array over all processes, so that running statistics are the same everywhere.
    """

    name = "composite"
    scale = "weighted sum of the terms"
    may_be_constant = False
    background = False

    def __init__(
        self,
        terms: Sequence[CompositeTerm],
        *,
        all_reduce: Callable[[FloatArray], FloatArray] = lambda values: values,
    ) -> None:
        names = [term.name for term in terms]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"a composite reward needs terms with unique names, found {names}")
        self.terms = tuple(terms)
        self.all_reduce = all_reduce
        self._progress = 0.0
        self._moments: dict[tuple[str, str], Moments] = {}
        # Every term and task on samples of the starting policy, whatever its normalisation.
        self.calibration: dict[tuple[str, str], Moments] = {}

    def set_progress(self, fraction: float) -> None:
        """How far the run is, 0 to 1; read by the schedules."""
        self._progress = min(max(float(fraction), 0.0), 1.0)

    def weight_of(self, term: CompositeTerm) -> float:
        """The term's weight now, its schedule applied."""
        factors: dict[Schedule, float] = {
            "constant": 1.0,
            "linear_up": self._progress,
            "linear_down": 1.0 - self._progress,
        }
        return term.spec.weight * factors[term.spec.schedule]

    def __call__(self, batch: RewardBatch, *, update: bool = False) -> RewardOutput:
        """Scores ``(B,)`` and parts.

        With ``update`` the running statistics take the batch in first; every process must then call it the
        same number of times. ``group`` normalisation reads the completions of one prompt in this batch.
        """
        return self.finish(BegunBatch(batch), update=update)

    def begin(self, batch: RewardBatch) -> BegunBatch:
        """Score the terms that need no model in threads; ``finish`` then gives what a call would have given."""
        background = [term for term in self.terms if getattr(term.reward, "background", False)]
        coming = {
            term.name: started(self.raw, term, batch, name=f"reward {term.name}") for term in background
        }
        return BegunBatch(batch, coming)

    def finish(self, begun: BegunBatch, *, update: bool = False) -> RewardOutput:
        """Score the remaining terms, wait for those begun, and put all together; see ``__call__``."""
        batch = begun.batch
        here = {term.name: self.raw(term, batch) for term in self.terms if term.name not in begun.coming}
        there = {name: output.result() for name, output in begun.coming.items()}
        outputs = here | there
        raw = [outputs[term.name] for term in self.terms]
        if update:
            self._take_in(
                batch, [(t, o) for t, o in zip(self.terms, raw, strict=True) if t.spec.normalise == "running"]
            )
        scores = np.zeros(len(batch), dtype=np.float64)
        applicable = np.zeros(len(batch), dtype=bool)
        parts: dict[str, FloatArray] = {}
        for term, output in zip(self.terms, raw, strict=True):
            normalised = self._normalised(term, output, batch)
            weight = self.weight_of(term)
            weighted = weight * normalised
            parts[term.name] = output.scores
            parts[f"{term.name}/normalised"] = normalised
            parts[f"{term.name}/weighted"] = weighted
            # NaN of a failed row survives the sum on purpose; rows without the term add nothing, and neither does a
            # term that is only watched, failed or not.
            if weight != 0.0:
                scores += np.where(output.applies, weighted, 0.0)
            applicable |= output.applies
        calibrated = calibrated_total(self.terms, outputs, batch, self.calibration)
        if calibrated is not None:
            parts["total/calibrated"] = np.where(applicable, calibrated, np.nan)
        return RewardOutput(np.where(applicable, scores, np.nan), parts, applicable)

    def calibrate(self, batch: RewardBatch) -> dict[str, dict[str, float]]:
        """Measure every term on samples of the starting policy; fixes the statistics of ``frozen`` terms.

        Returns, a term and task (``"cider/caption"``), count, mean, std and the fraction that failed.

        Raises:
            RunFailed: a term applies to no sample, failed on all, or gives every sample the same score
                (CIDEr-D is 0.000 for captions far from every reference): it would teach nothing. Penalties
                may be constant.
        """
        report: dict[str, dict[str, float]] = {}
        problems: list[tuple[str, str]] = []
        for term in self.terms:
            output = self.raw(term, batch)
            for task in sorted({row.task for row in batch.rows}):
                members = output.applies & _of_task(batch, task)
                if not members.any():
                    continue
                finite = output.scores[members & np.isfinite(output.scores)]
                moments = Moments().merged(finite.size, float(finite.sum()), float(np.square(finite).sum()))
                self.calibration[term.name, task] = moments
                if term.spec.normalise == "frozen":
                    self._moments[term.name, task] = moments
                report[f"{term.name}/{task}"] = {
                    "count": float(finite.size),
                    "mean": moments.mean,
                    "std": moments.std,
                    "failed_fraction": 1.0 - finite.size / int(members.sum()),
                }
                problems += verdict(term, task, int(members.sum()), moments)
            if not any(key.rpartition("/")[0] == term.name for key in report):
                what = f"{term.name} applies to none of the {len(batch)} calibration samples"
                problems.append((what, f"give data.val rows of a task that {term.name} scores"))
        if problems:
            found, remedies = zip(*problems, strict=True)
            raise RunFailed(
                "the reward cannot teach this policy:\n" + "\n".join(f"  {problem}" for problem in found),
                remedy="; ".join(dict.fromkeys(remedies)),
            )
        return report

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs: statistics a term and task, and the progress of the schedules."""
        return {
            "progress": self._progress,
            "moments": _as_text(self._moments),
            "calibration": _as_text(self.calibration),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over ``state_dict()`` of an equal composite.

        Raises:
            CheckpointError: the state holds a term this composite lacks.
        """
        known = {term.name for term in self.terms}
        for key in state["moments"]:
            if key.partition("\t")[0] not in known:
                raise CheckpointError(
                    f"the checkpoint holds statistics of reward term {key.partition(chr(9))[0]!r}, which is not there"
                )
        self._moments = _from_text(state["moments"])
        self.calibration = _from_text(state.get("calibration", {}))
        self.set_progress(state["progress"])

    # ---- one term ------------------------------------------------------------------------------------------

    def raw(self, term: CompositeTerm, batch: RewardBatch) -> RewardOutput:
        """The term's own scores; only the rows of its tasks are handed to it."""
        wanted = np.ones(len(batch), dtype=bool)
        if term.spec.tasks is not None:
            wanted = np.asarray([row.task in term.spec.tasks for row in batch.rows], dtype=bool)
        chosen = np.flatnonzero(wanted)
        scores = np.full(len(batch), np.nan, dtype=np.float64)
        applicable = np.zeros(len(batch), dtype=bool)
        if chosen.size:
            output = term.reward(batch.take(chosen))
            scores[chosen] = np.where(output.applies, output.scores, np.nan)
            applicable[chosen] = output.applies
        return RewardOutput(scores, applicable=applicable)

    def _normalised(self, term: CompositeTerm, output: RewardOutput, batch: RewardBatch) -> FloatArray:
        """Normalised and clipped scores ``(B,)``; NaN where the raw score is NaN."""
        kind, values = term.spec.normalise, output.scores
        if kind == "group":
            values = normalise_in_groups(values, [group_of(row) for row in batch.rows])
        elif kind in ("running", "frozen"):
            values = values.copy()
            for task in {
                row.task for row, applies in zip(batch.rows, output.applies, strict=True) if applies
            }:
                moments = self._moments.get((term.name, task))
                if moments is None:
                    raise RunFailed(
                        f"reward term {term.name!r} has no {kind} statistics for task {task!r}",
                        remedy="give the validation data rows of this task, or normalise the term by group",
                    )
                members = _of_task(batch, task)
                values[members] = moments.standardise(values[members])
        return values if term.spec.clip is None else np.clip(values, *term.spec.clip)

    def _take_in(self, batch: RewardBatch, outputs: Sequence[tuple[CompositeTerm, RewardOutput]]) -> None:
        """Merge a batch into the running statistics, summed over processes in one exchange."""
        keys = [(term, output, task) for term, output in outputs for task in ("caption", "vqa")]
        if not keys:
            return
        sums = np.zeros((len(keys), 3), dtype=np.float64)
        for place, (_, output, task) in enumerate(keys):
            finite = output.scores[_of_task(batch, task) & np.isfinite(output.scores)]
            sums[place] = finite.size, finite.sum(), np.square(finite).sum()
        for (term, _, task), (count, total, squares) in zip(keys, self.all_reduce(sums), strict=True):
            if count:
                before = self._moments.get((term.name, task), Moments())
                self._moments[term.name, task] = before.merged(float(count), float(total), float(squares))


def group_of(row: PromptRow) -> str:
    """What the completions of one prompt share. A ``sample_id`` alone is unique within its file only."""
    return f"{row.task}\x1f{row.image_id}\x1f{row.sample_id}"


def _as_text(moments: Mapping[tuple[str, str], Moments]) -> dict[str, dict[str, float]]:
    return {f"{name}\t{task}": found.as_dict() for (name, task), found in moments.items()}


def _from_text(state: Mapping[str, Mapping[str, float]]) -> dict[tuple[str, str], Moments]:
    keys = {key: key.partition("\t") for key in state}
    return {(keys[key][0], keys[key][2]): Moments(**value) for key, value in state.items()}


def _of_task(batch: RewardBatch, task: str) -> BoolArray:
    return np.asarray([row.task == task for row in batch.rows], dtype=bool)
