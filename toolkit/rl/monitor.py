"""Phase 9, the numbers: what is logged each iteration, and tables of samples with their reward parts.

Every metric and what should worry about it: docs/ppo.md.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toolkit.records import PromptRow
from toolkit.rewards.base import FloatArray, RewardOutput
from toolkit.rewards.normalisation import SMALLEST_STD
from toolkit.rewards.shaping import BadEndingReward, RepetitionReward
from toolkit.rl.engine import Engine
from toolkit.rl.experience import Experience
from toolkit.rl.sample_page import show_samples
from toolkit.rl.sampler_agreement import mismatch
from toolkit.rl.update import UpdateStatistics
from toolkit.runs.atomic import atomic_write_text
from toolkit.runs.metrics import json_safe
from toolkit.runs.trackers import Trackers

__all__ = ["Means", "iteration_numbers", "progress_note", "rollout_means", "update_means", "write_samples"]

SAMPLE_ROWS = 16


class Means:
    """Named means over all processes: sums and counts are collected here, exchanged once in ``reduced``."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}

    def add(self, name: str, total: float, count: float) -> None:
        """Add ``count`` values whose sum is ``total``."""
        before = self._sums.get(name, (0.0, 0.0))
        self._sums[name] = before[0] + float(total), before[1] + float(count)

    def add_array(self, name: str, values: Any) -> None:
        """Add the finite entries of an array; what is NaN (failed or not applicable) is left out."""
        array = np.asarray(values, dtype=np.float64)
        finite = array[np.isfinite(array)]
        self.add(name, float(finite.sum()), finite.size)

    def reduced(self, engine: Engine) -> dict[str, float]:
        """Name → mean over all processes, NaN where nothing was added. Every process must hold the same names."""
        names = sorted(self._sums)
        table = torch.tensor([self._sums[name] for name in names], dtype=torch.float64)
        totals = engine.all_sum(table).tolist()
        return {
            name: total / count if count else float("nan")
            for name, (total, count) in zip(names, totals, strict=True)
        }


def iteration_numbers(
    engine: Engine,
    experience: Experience,
    output: RewardOutput,
    statistics: UpdateStatistics,
    *,
    group: int,
    gap: tuple[float, int] | None = None,
) -> dict[str, float]:
    """An iteration's metrics, the same on every process, but for those of the KL controller and the clock.

    ``group`` samples of a prompt stand together; ``gap`` is the vision gap's sum over completions and their number.
    """
    means = Means()
    rollout_means(means, experience, output, group=group)
    update_means(means, statistics)
    if gap is not None:
        means.add("guard/vision_gap_nats", *gap)
    values = means.reduced(engine)
    if experience.explained_variance is not None and experience.value_spread is not None:
        values["value/explained_variance"] = experience.explained_variance
        values["value/spread"] = experience.value_spread
    values["optimizer/grad_norm"] = float(np.mean(statistics.grad_norms))
    values["optimizer/updates"] = float(statistics.updates)
    values["optimizer/learning_rate"] = float(engine.optimizer.param_groups[0]["lr"])
    values["rollout/temperature"] = experience.rollout.temperature
    return values


def rollout_means(means: Means, experience: Experience, output: RewardOutput, *, group: int) -> None:
    """Add what phases 1 to 7 say: rewards by term and stage, KL, lengths, endings, vocabulary, values.

    ``group`` samples of a prompt stand together.
    """
    rollout, mask = experience.rollout, experience.mask
    rows = len(rollout)
    for name, part in output.parts.items():
        means.add_array(f"reward/{name}", part)
    means.add_array("reward/total", output.scores)
    means.add("reward/failed_fraction", float(output.failed.sum()), rows)
    means.add("reward/unscored_fraction", float((~output.applies).sum()), rows)
    used = float((mask.sum(1) > 0).sum())
    means.add("kl/k1_nats", float(experience.kl_k1.sum()), used)
    means.add("kl/k3_nats", float(experience.kl_k3.sum()), used)
    means.add("rollout/tokens", float(rollout.mask.sum()), rows)
    means.add("rollout/ended_fraction", sum(item.ended for item in rollout.completions), rows)
    batch = rollout.reward_batch()
    means.add_array("rollout/repeated_fraction", -RepetitionReward()(batch).scores)
    means.add_array("rollout/bad_ending_fraction", -BadEndingReward()(batch).scores)
    means.add("reward/flat_fraction", *_flat_groups(output.scores, group))
    sampler = mismatch(rollout)
    if sampler is not None:
        means.add("rollout/vllm_mismatch_nats", *sampler)
    words = Counter(word for item in rollout.completions for word in item.text.lower().split())
    means.add("rollout/distinct_word_fraction", len(words), words.total())
    if rollout.values is not None and experience.returns is not None:
        tokens = float(mask.sum())
        means.add("value/mean", float((rollout.values * mask).sum()), tokens)
        means.add("value/return_mean", float(experience.returns.sum()), tokens)


def _flat_groups(scores: FloatArray, group: int) -> tuple[int, int]:
    """Groups whose scores are all equal, and groups that could differ; single samples form one group together."""
    size = group if group > 1 else len(scores)
    parts = [scores[start : start + size] for start in range(0, len(scores), size)]
    finite = [part[np.isfinite(part)] for part in parts]
    judged = [part for part in finite if part.size > 1]
    return sum(float(np.ptp(part)) <= SMALLEST_STD for part in judged), len(judged)


def update_means(means: Means, statistics: UpdateStatistics) -> None:
    """Add what phase 8 says: losses, clipping, entropy, how far the policy moved."""
    sums = statistics.sums
    tokens = sums.get("tokens", 0.0)
    for metric, key in (
        ("policy/loss", "policy_loss"),
        ("policy/clip_fraction", "policy_clipped"),
        ("policy/entropy_nats", "entropy"),
        ("value/loss", "value_loss"),
        ("value/clip_fraction", "value_clipped"),
    ):
        if key in sums:
            means.add(metric, sums[key], tokens)
    means.add("policy/kl_to_behaviour_nats", sums.get("kl_k3", 0.0), sums.get("completions", 0.0))


def progress_note(
    values: Mapping[str, float], held_out: float | None, *, completions: int, seconds: float
) -> str:
    """The end of the progress line: reward with its weighted parts, KL, held-out score, tokens a second.

    ``values`` are ``iteration_numbers``, of an iteration of ``completions`` on all processes that took ``seconds``.
    """
    parts = ", ".join(
        f"{name.removeprefix('reward/').removesuffix('/weighted')} {value:.2f}"
        for name, value in values.items()
        if name.endswith("/weighted")
    )
    said = [
        f"reward {values['reward/total']:.3f}" + (f" ({parts})" if parts else ""),
        f"kl {values['kl/k1_nats']:.2f}",
        *([] if held_out is None else [f"held-out {held_out:.3f}"]),
        f"{values['rollout/tokens'] * completions / max(seconds, 1e-9):.0f} tokens/s",
    ]
    return "  ".join(said)


def write_samples(
    folder: Path, step: int, experience: Experience, output: RewardOutput, trackers: Trackers | None = None
) -> None:
    """The first completions with their picture, score and reward parts.

    To ``rollouts-<step>.jsonl`` (pictures as paths), to a page (pictures within) and to the trackers.
    """
    samples = [
        _sample(experience, output, index) for index in range(min(SAMPLE_ROWS, len(experience.rollout)))
    ]
    lines = [json.dumps(json_safe(sample), ensure_ascii=False, allow_nan=False) for sample in samples]
    atomic_write_text(folder / f"rollouts-{step:06d}.jsonl", "".join(line + "\n" for line in lines))
    images = [row.images for row in experience.rollout.rows[: len(samples)]]
    show_samples(folder, step, samples, images, trackers)


def _sample(experience: Experience, output: RewardOutput, index: int) -> Mapping[str, Any]:
    row: PromptRow = experience.rollout.rows[index]
    completion = experience.rollout.completions[index]
    return {
        "sample_id": row.sample_id,
        "task": row.task,
        "images": [str(image) if isinstance(image, Path) else None for image in row.images],
        "prompt": _prompt_text(row),
        "completion": completion.text,
        "ended": completion.ended,
        "tokens": len(completion.token_ids),
        "references": list(row.references or row.answers),
        "score": float(output.scores[index]),
        "parts": {name: float(part[index]) for name, part in output.parts.items()},
        "kl_nats": float(experience.kl_k1[index].sum()),
    }


def _prompt_text(row: PromptRow) -> str:
    contents = [message["content"] for message in row.prompt]
    blocks = [block for content in contents if not isinstance(content, str) for block in content]
    texts = [content for content in contents if isinstance(content, str)]
    return " ".join([*texts, *(block["text"] for block in blocks if block.get("type") == "text")])
