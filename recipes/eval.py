"""Evaluate every system of a chain on the test split, beside a blind system and a person.

vlm-rlhf run recipes/configs/scenes/eval.yaml data.root=DIR systems.0.model.id=DIR …
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cli.stage import stage_main
from toolkit.config.schema import EvalRecipe, GenerationSpec, OnPolicyPairsSpec
from toolkit.errors import RecipeError
from toolkit.records import PreferenceRow
from toolkit.runs.directory import RunDirectory

if TYPE_CHECKING:
    from reward_models.scorer import LearnedReward


def run(recipe: EvalRecipe, directory: RunDirectory, resume: bool) -> None:
    """Write result files, scores and ``summary.json``; decoding goes on where an earlier run stopped."""
    from toolkit.evaluation.inputs import read_inputs

    inputs = read_inputs(recipe, judged=recipe.reward_model is not None)
    from reward_models.scorer import LearnedReward
    from toolkit.evaluation.stage import evaluate_systems
    from toolkit.evaluation.summary import summary_table

    reward = LearnedReward.load(recipe.reward_model) if recipe.reward_model else None
    if recipe.on_policy_pairs is not None:
        inputs = inputs.with_pairs(on_policy_pairs(recipe, recipe.on_policy_pairs, directory))

    card = partial(reward_card, recipe, reward) if reward is not None else None
    summary = evaluate_systems(recipe, directory, inputs=inputs, reward=reward, reward_model_card=card)
    sys.stdout.write(summary_table(summary) + "\n")


def reward_card(recipe: EvalRecipe, reward: LearnedReward, rows: Sequence[PreferenceRow]) -> dict[str, Any]:
    """Accuracy of the reward model on held-out pairs, with pictures blanked, and of its text-only twin."""
    from reward_models.evaluation import score_rows
    from reward_models.scorer import LearnedReward
    from toolkit.evaluation.pairs import accuracy_card

    judges = {
        "accuracy": reward,
        "blanked_accuracy": reward.blanked(),
    }
    if recipe.text_only_reward_model is not None:
        judges["text_only_accuracy"] = LearnedReward.load(recipe.text_only_reward_model)
    margins = {}
    for name, judge in judges.items():
        chosen, rejected = score_rows(judge, rows, label=f"texts of pairs, {name}")
        margins[name] = chosen - rejected
    return accuracy_card(rows, margins)


def on_policy_pairs(
    recipe: EvalRecipe, spec: OnPolicyPairsSpec, directory: RunDirectory
) -> Sequence[PreferenceRow]:
    """Sample a system on test pictures and rank by the scenes' criterion: pairs for the reward card."""
    from recipes.preferences import scene_rater
    from reward_models.on_policy import ranked_pairs, sample_completions
    from toolkit.data.sources import load_prompt_rows
    from toolkit.data.writing import write_preference_rows
    from toolkit.models.loading import load_vlm

    system = next((system for system in recipe.systems if system.name == spec.system), None)
    if system is None or recipe.scenes is None:
        problem = f"on_policy_pairs: expected scenes and one of the systems, found system {spec.system!r}"
        raise RecipeError("recipe", problem)
    captions = [source for source in recipe.data.test if source.kind == "caption"]
    rows = load_prompt_rows(captions, Path(recipe.data.root))[: spec.images]
    folder = directory.path / "on_policy"
    folder.mkdir(exist_ok=True)
    completions = sample_completions(
        load_vlm(system.model, trainable=False),
        rows,
        number=spec.completions_per_prompt,
        generation=GenerationSpec(
            max_new_tokens=recipe.generation.max_new_tokens,
            temperature=spec.temperature,
            batch_size=recipe.generation.batch_size,
        ),
        seed=recipe.run.seed,
        file=folder / "completions.jsonl",
    )
    rater = scene_rater([Path(recipe.data.root) / recipe.scenes], rows)
    pairs = ranked_pairs(
        rows, completions, rater, pairs_per_prompt=1, flip_fraction=0.0, seed=recipe.run.seed
    )
    write_preference_rows(pairs, folder / "pairs.jsonl")
    return pairs


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line and return its exit code."""
    return stage_main("eval", run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
