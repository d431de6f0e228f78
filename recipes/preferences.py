"""On-policy preferences: K completions a prompt, ranked by simulated raters, by a metric, or judged by people.

vlm-rlhf run recipes/configs/scenes/preferences.yaml model.id=out/sft/final data.root=DIR
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cli.stage import stage_main
from toolkit.config.schema import PreferencesRecipe, RowsSource
from toolkit.errors import DataError, RecipeError
from toolkit.records import PromptRow
from toolkit.runs.directory import RunDirectory

if TYPE_CHECKING:
    from reward_models.on_policy import Rater
    from toolkit.data.scenes.scene import Scene

_log = logging.getLogger("vlm_rlhf.preferences")


def run(recipe: PreferencesRecipe, directory: RunDirectory, resume: bool) -> None:
    """Write ``final/train.jsonl`` and, where the recipe has validation prompts, ``final/val.jsonl``."""
    from reward_models.on_policy import ranked_pairs, sample_completions
    from toolkit.data.sources import load_parts, load_preference_rows, load_prompt_rows
    from toolkit.data.writing import write_preference_rows
    from toolkit.runs.atomic import atomic_directory

    if recipe.raters not in ("simulated", "metric"):
        source = Path(recipe.raters)
        human = load_preference_rows([RowsSource(kind="rows", file=source.name)], source.parent)
        with atomic_directory(directory.final) as folder:
            write_preference_rows(human, folder / "train.jsonl")
        _log.info("%d human judgements", len(human))
        return
    parts = dict(zip(("train", "val"), load_parts(recipe.data, load_prompt_rows), strict=True))
    if recipe.rank_by:
        rater = reward_rater(recipe, parts["train"])
    elif recipe.raters == "simulated":
        rater = simulated_rater(recipe, [row for rows in parts.values() for row in rows])
    else:
        rater = metric_rater(parts["train"])
    from toolkit.models.loading import load_vlm

    vlm = load_vlm(recipe.model, trainable=False)
    pairs = {}
    for name, rows in parts.items():
        completions = sample_completions(
            vlm,
            rows,
            number=recipe.completions_per_prompt,
            generation=recipe.generation,
            seed=recipe.run.seed + (name == "val"),
            file=directory.path / f"completions-{name}.jsonl",
        )
        pairs[name] = ranked_pairs(
            rows,
            completions,
            rater,
            pairs_per_prompt=recipe.pairs_per_prompt,
            flip_fraction=recipe.flip_fraction,
            seed=recipe.run.seed,
            min_margin=recipe.min_margin,
            balance_lengths=recipe.balance_lengths,
            provenance=provenance(recipe),
        )
    with atomic_directory(directory.final) as folder:
        for name in (name for name, rows in parts.items() if rows):
            if not pairs[name]:
                raise DataError(
                    f"{name} prompts",
                    "no prompt has two completions whose scores differ enough, so there is no pair",
                    remedy="raise completions_per_prompt or generation.temperature, or lower min_margin",
                )
            write_preference_rows(pairs[name], folder / f"{name}.jsonl")
            _log.info("%s: %d pairs from %d prompts", name, len(pairs[name]), len(parts[name]))


def provenance(recipe: PreferencesRecipe) -> dict[str, Any]:
    """Columns that say where a pair comes from: sampler, temperature, seed and what ranked."""
    ranked = "+".join(term.term for term in recipe.rank_by) or recipe.raters
    return {
        "checkpoint": recipe.model.id,
        "temperature": recipe.generation.temperature,
        "seed": recipe.run.seed,
        "ranked_by": ranked,
    }


def reward_rater(recipe: PreferencesRecipe, rows: Sequence[PromptRow]) -> Rater:
    """The weighted sum of the recipe's ``rank_by``: metrics, reward models or the user's function.

    Document frequencies are those of ``rows``. A completion counts as one that ended, as it reads.
    """
    from reward_models.scorer import LearnedReward
    from toolkit.rewards.base import RewardBatch
    from toolkit.rewards.building import build_reward

    paths = {term.model for term in recipe.rank_by if term.term == "learned" and term.model is not None}
    learned = {path: LearnedReward.load(path) for path in sorted(paths)}
    references = {row.image_id: row.references for row in rows if row.references}
    reward = build_reward(recipe.rank_by, references=references, learned=learned)

    def rate(row: PromptRow, texts: Sequence[str]) -> list[float]:
        if not texts:
            return []
        words = [len(text.split()) for text in texts]
        scores = reward(RewardBatch([row] * len(texts), list(texts), [True] * len(texts), words)).scores
        return [float(score) for score in scores]

    return rate


def simulated_rater(recipe: PreferencesRecipe, rows: Sequence[PromptRow]) -> Rater:
    """The scenes' raters, or what is missing for them."""
    if not recipe.scenes:
        problem = "scenes: simulated raters need the scenes.jsonl files of the prompts, found none"
        raise RecipeError("recipe", problem, remedy="name them, or set raters=metric")
    return scene_rater([Path(recipe.data.root) / name for name in recipe.scenes], rows)


def scene_rater(files: Sequence[Path], rows: Sequence[PromptRow]) -> Rater:
    """Raters of the scenes: the hidden criterion for captions, the annotators' majority for answers.

    Raises:
        DataError: a picture among ``rows`` that captions are asked for has no scene in the files.
    """
    from toolkit.data.scenes.gold import gold
    from toolkit.data.scenes.scene import read_scenes

    scenes: dict[Any, Scene] = {key: scene for file in files for key, scene in read_scenes(file).items()}
    missing = [
        f"image {row.image_id!r} has no scene"
        for row in rows
        if row.task == "caption" and row.image_id not in scenes
    ]
    if missing:
        where = ", ".join(str(file) for file in files)
        raise DataError(where, missing, remedy="name the scenes.jsonl of every split, or set raters=metric")

    def rate(row: PromptRow, texts: Sequence[str]) -> list[float]:
        if row.task == "vqa":
            return vqa_scores(row, texts)
        return [gold(scenes[row.image_id], text) for text in texts]

    return rate


def metric_rater(rows: Sequence[PromptRow]) -> Rater:
    """CIDEr-D with the training references' document frequencies for captions, VQA accuracy for answers."""
    from toolkit.metrics import CiderD, DocumentFrequencies

    captions = {row.sample_id: row.references for row in rows if row.task == "caption"}
    frequencies = DocumentFrequencies.from_references(captions) if captions else None

    def rate(row: PromptRow, texts: Sequence[str]) -> list[float]:
        if row.task == "vqa" or frequencies is None:
            return vqa_scores(row, texts)
        scorer = CiderD({row.sample_id: row.references}, frequencies)
        return [float(score) for score in scorer.score([row.sample_id] * len(texts), list(texts))]

    return rate


def vqa_scores(row: PromptRow, texts: Sequence[str]) -> list[float]:
    """Official VQA accuracy of every text against the row's annotators."""
    from toolkit.metrics.vqa import vqa_accuracy

    return [vqa_accuracy(text, row.answers) for text in texts]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line and return its exit code."""
    return stage_main("preferences", run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
