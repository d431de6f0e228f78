"""Preference pairs from a policy's own completions: sample K a prompt, have them ranked, keep the widest gaps.

A reward model that has only seen other people's sentences does not know the policy's mistakes; on-policy
pairs show it those, and give DPO completions the policy really writes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.config.schema import GenerationSpec
from toolkit.records import PreferenceRow, PromptRow
from toolkit.runs.progress import progress

if TYPE_CHECKING:
    from toolkit.models.loading import LoadedVlm

__all__ = ["Rater", "ranked_pairs", "sample_completions"]

Rater = Callable[[PromptRow, Sequence[str]], Sequence[float]]
"""How good each text answers the row's prompt; any scale, higher is better, equal means undecided."""


def sample_completions(
    vlm: LoadedVlm,
    rows: Sequence[PromptRow],
    *,
    number: int,
    generation: GenerationSpec,
    seed: int,
    file: Path,
) -> list[list[str]]:
    """``number`` sampled completions of every row, appended to ``file`` as batches finish.

    Each batch has its own seed, and batches found in ``file`` are not sampled again: a killed run that goes
    on ends with the same completions as one that was never killed.
    """
    from toolkit.data.images import load_image
    from toolkit.models.encoding import encode_prompt
    from toolkit.models.generation import generate

    size = max(1, generation.batch_size // number)
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    done = _finished_batches(file)
    file.write_text("".join(json.dumps(batch) + "\n" for batch in done), encoding="utf-8")
    with file.open("a", encoding="utf-8") as stream:
        for index in progress(range(len(done), len(batches)), len(batches) - len(done), "sampling"):
            prompts = [
                encode_prompt(vlm, r.prompt, [load_image(i) for i in r.images]) for r in batches[index]
            ]
            completions = generate(
                vlm,
                prompts,
                max_new_tokens=generation.max_new_tokens,
                temperature=generation.temperature,
                num_samples=number,
                batch_size=generation.batch_size,
                seed=seed * 1_000_003 + index,
            )
            texts = [completion.text for completion in completions]
            done.append([texts[start : start + number] for start in range(0, len(texts), number)])
            stream.write(json.dumps(done[-1]) + "\n")
            stream.flush()
    return [texts for batch in done for texts in batch]


def ranked_pairs(
    rows: Sequence[PromptRow],
    completions: Sequence[Sequence[str]],
    rater: Rater,
    *,
    pairs_per_prompt: int,
    flip_fraction: float,
    seed: int,
    source: str = "on_policy",
) -> list[PreferenceRow]:
    """The pairs of different scores with the widest gaps, at most ``pairs_per_prompt`` a row.

    A share ``flip_fraction`` of the labels is turned round, as human raters slip. ``margin`` is not set:
    raters say which text is better, not by how much. Rows whose completions all score the same give no
    pair.
    """
    rng = random.Random(f"raters/{seed}")
    pairs: list[PreferenceRow] = []
    for row, texts in zip(rows, completions, strict=True):
        different = [text for text in dict.fromkeys(texts) if text]
        scores = list(rater(row, different))
        gaps = [
            (scores[a] - scores[b], different[a], different[b])
            for a in range(len(different))
            for b in range(len(different))
            if scores[a] > scores[b]
        ]
        gaps.sort(key=lambda gap: -gap[0])
        for number, (_, better, worse) in enumerate(gaps[:pairs_per_prompt]):
            chosen, rejected = (worse, better) if rng.random() < flip_fraction else (better, worse)
            pairs.append(_pair(row, chosen, rejected, f"{source}-{number}", source))
    return pairs


def _finished_batches(file: Path) -> list[list[list[str]]]:
    """Whole lines only: the last one may have been cut by a kill."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _pair(row: PromptRow, chosen: str, rejected: str, name: str, source: str) -> PreferenceRow:
    return PreferenceRow(
        sample_id=f"{row.sample_id}-{name}",
        task=row.task,
        prompt=row.prompt,
        chosen=chosen,
        rejected=rejected,
        images=row.images,
        source=source,
    )
