"""An iteration that a signal broke off between two minibatches: what a checkpoint keeps of it, so that it goes on.

The completions with their log-probabilities, values, scores and advantages are kept, for the weights that made them
have moved since. Prompts and picture features are functions of the iteration's number and of frozen weights: they are
made again, in the same batches, which gives the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolkit.models.generation import GeneratedCompletion
from toolkit.records import PromptRow
from toolkit.rewards.base import RewardOutput
from toolkit.rl.experience import Experience
from toolkit.rl.rollout import Rollout, RolloutWorker
from toolkit.rl.update import UpdateStatistics

__all__ = ["Unfinished"]

_OF_ROLLOUT = ("logprobs", "reference", "values", "mask")
_OF_EXPERIENCE = ("mask", "scores", "kl_k1", "kl_k3", "advantages", "returns")


@dataclass
class Unfinished:
    """An iteration after phase 7, with what its updates did so far (``statistics.updates`` optimizer steps).

    ``gap`` is what ``guards.vision_gap`` measured before the first of them, None where it was not asked for.
    """

    experience: Experience
    output: RewardOutput
    statistics: UpdateStatistics
    gap: tuple[float, int] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Tensors on the CPU and plain values."""
        rollout, output = self.experience.rollout, self.output
        return {
            "rollout": {name: _on_cpu(getattr(rollout, name)) for name in _OF_ROLLOUT},
            "experience": {name: _on_cpu(getattr(self.experience, name)) for name in _OF_EXPERIENCE},
            "completions": [asdict(item) for item in rollout.completions],
            "temperature": rollout.temperature,
            "seconds": dict(rollout.seconds),
            "explained_variance": self.experience.explained_variance,
            "value_spread": self.experience.value_spread,
            "scores": torch.from_numpy(output.scores),
            "parts": {name: torch.from_numpy(part) for name, part in output.parts.items()},
            "applies": torch.from_numpy(output.applies),
            "statistics": asdict(self.statistics),
            "gap": self.gap,
        }

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], rows: Sequence[PromptRow], worker: RolloutWorker
    ) -> Unfinished:
        """What ``state_dict`` returned, with the iteration's ``rows`` of this process, which ``worker`` encodes."""
        samples, device = worker.spec.samples_per_prompt, worker.vlm.device

        def placed(part: str, names: Sequence[str]) -> dict[str, Any]:
            found = {name: state[part][name] for name in names}
            return {name: None if value is None else value.to(device) for name, value in found.items()}

        rollout = Rollout(
            rows=[row for row in rows for _ in range(samples)],
            prompts=[prompt for prompt in worker.encoded(rows) for _ in range(samples)],
            completions=[GeneratedCompletion(**item) for item in state["completions"]],
            temperature=state["temperature"],
            seconds=dict(state["seconds"]),
            **placed("rollout", _OF_ROLLOUT),
        )
        experience = Experience(
            rollout=rollout,
            explained_variance=state["explained_variance"],
            value_spread=state["value_spread"],
            **placed("experience", _OF_EXPERIENCE),
        )
        output = RewardOutput(
            scores=_array(state["scores"]),
            parts={name: _array(part) for name, part in state["parts"].items()},
            applicable=state["applies"].numpy().astype(np.bool_),
        )
        statistics = UpdateStatistics(**{**state["statistics"], "broken_off": False})
        gap = state.get("gap")
        return cls(experience, output, statistics, None if gap is None else (float(gap[0]), int(gap[1])))


def _on_cpu(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().cpu()


def _array(value: Tensor) -> Any:
    return value.numpy().astype(np.float64)
