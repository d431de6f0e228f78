"""Preference pairs from a policy's own completions: sample K a prompt, have them ranked, keep the widest gaps.

A reward model that has only seen other people's sentences does not know the policy's mistakes; on-policy
pairs show it those, and give DPO completions the policy really writes.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.config.schema import GenerationSpec
from toolkit.records import PreferenceRow, PromptRow
from toolkit.runs.progress import progress

if TYPE_CHECKING:
    from toolkit.models.loading import LoadedVlm

__all__ = ["Rater", "distinct", "ranked_pairs", "sample_completions"]

_NO_WORDS = re.compile(rf"[\s{re.escape(string.punctuation)}]+")
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


def distinct(completions: Sequence[Sequence[str]]) -> list[list[str]]:
    """The non-empty completions of each row, of those that differ in case, spaces or punctuation alone the first."""
    found = []
    for texts in completions:
        first: dict[str, str] = {}
        for text in filter(None, texts):
            first.setdefault(_plain(text), text)
        found.append(list(first.values()))
    return found


def ranked_pairs(
    rows: Sequence[PromptRow],
    completions: Sequence[Sequence[str]],
    rater: Rater,
    *,
    pairs_per_prompt: int,
    flip_fraction: float,
    seed: int,
    source: str = "on_policy",
    min_margin: float = 0.0,
    balance_lengths: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> list[PreferenceRow]:
    """The pairs of different scores with the widest gaps, at most ``pairs_per_prompt`` a row.

    A share ``flip_fraction`` of the labels is turned round, as human raters slip. ``margin`` is not set:
    raters say which text is better, not by how much. Rows whose completions all score the same give no
    pair, nor do prompts that were there before.

    Args:
        rows: the prompts.
        completions: of each prompt.
        rater: scores them; NaN says nothing about a text, which is then in no pair.
        pairs_per_prompt: at most so many.
        flip_fraction: share of turned labels.
        seed: of the flips.
        source: the pairs' source.
        min_margin: least difference of scores.
        balance_lengths: drop the narrowest pairs until the longer text wins as often as the shorter one.
        provenance: further columns of every pair.
    """
    rng = random.Random(f"raters/{seed}")
    found: list[tuple[float, PreferenceRow]] = []
    seen: set[str] = set()
    for row, texts in zip(rows, distinct(completions), strict=True):
        key = json.dumps([row.image_id, list(row.prompt)], default=str)
        if key in seen:
            continue
        seen.add(key)
        for number, (gap, better, worse, scores) in enumerate(
            _gaps(texts, list(rater(row, texts)), min_margin)[:pairs_per_prompt]
        ):
            chosen, rejected = (worse, better) if rng.random() < flip_fraction else (better, worse)
            meta = {**(provenance or {}), **scores} if provenance is not None else {}
            found.append((gap, _pair(row, chosen, rejected, f"{source}-{number}", source, meta)))
    return _balanced(found) if balance_lengths else [pair for _, pair in found]


def _gaps(
    texts: Sequence[str], scores: Sequence[float], least: float
) -> list[tuple[float, str, str, dict[str, float]]]:
    """(gap, better, worse, both scores) of every pair whose gap is above 0 and at least ``least``, widest first."""
    gaps = [
        (
            scores[a] - scores[b],
            texts[a],
            texts[b],
            {"better_score": scores[a], "worse_score": scores[b]},
        )
        for a in range(len(texts))
        for b in range(len(texts))
        if scores[a] > scores[b] and scores[a] - scores[b] >= least
    ]
    return sorted(gaps, key=lambda gap: -gap[0])


def _balanced(found: Sequence[tuple[float, PreferenceRow]]) -> list[PreferenceRow]:
    """As many pairs won by the longer text as by the shorter one, in words; the widest gaps of each stay."""
    sides: dict[int, list[int]] = {1: [], -1: [], 0: []}
    for index, (_, pair) in enumerate(found):
        difference = len(pair.chosen.split()) - len(pair.rejected.split())
        sides[(difference > 0) - (difference < 0)].append(index)
    most = min(len(sides[1]), len(sides[-1]))
    kept = set(sides[0])
    for side in (1, -1):
        kept.update(sorted(sides[side], key=lambda index: -found[index][0])[:most])
    return [pair for index, (_, pair) in enumerate(found) if index in kept]


def _plain(text: str) -> str:
    return _NO_WORDS.sub(" ", text).strip().casefold()


def _finished_batches(file: Path) -> list[list[list[str]]]:
    """Whole lines only: the last one may have been cut by a kill."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _pair(
    row: PromptRow, chosen: str, rejected: str, name: str, source: str, meta: Mapping[str, Any]
) -> PreferenceRow:
    licence = {"licence": row.meta["licence"]} if "licence" in row.meta else {}
    return PreferenceRow(
        sample_id=f"{row.sample_id}-{name}",
        task=row.task,
        prompt=row.prompt,
        chosen=chosen,
        rejected=rejected,
        images=row.images,
        source=source,
        meta={**licence, **meta},
    )
