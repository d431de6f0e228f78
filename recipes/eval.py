"""Evaluate every system of a chain on the test split, beside a blind system and a person.

vlm-rlhf run recipes/configs/scenes/eval.yaml data.root=DIR systems.0.model.id=DIR …
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cli.stage import stage_main
from toolkit.config.schema import BestOfNSpec, EvalRecipe, GenerationSpec, OnPolicyPairsSpec
from toolkit.errors import RecipeError
from toolkit.records import PreferenceRow, PromptRow
from toolkit.runs.atomic import atomic_write_text
from toolkit.runs.directory import RunDirectory
from toolkit.runs.metrics import json_safe
from toolkit.runs.processes import is_main_process, process_count, process_rank

if TYPE_CHECKING:
    from reward_models.scorer import LearnedReward
    from toolkit.evaluation.inputs import EvaluationInputs


def run(recipe: EvalRecipe, directory: RunDirectory, resume: bool) -> None:
    """Write result files, scores and ``summary.json``; decoding goes on where an earlier run stopped.

    Several processes share the decoding. Then the first one scores the systems while the second one measures the reward
    model, if it has pairs; the others are done.
    """
    from toolkit.evaluation.inputs import read_inputs

    inputs = read_inputs(recipe, judged=recipe.reward_model is not None)
    card_file = directory.path / "reward_model.json"
    shared = process_count() > 1 and recipe.reward_model is not None and bool(inputs.pairs)
    if process_count() > 1:
        from toolkit.evaluation.stage import decode_shares

        if is_main_process():
            card_file.unlink(missing_ok=True)  # of an interrupted run; nobody writes before all have decoded
        decode_shares(recipe, directory, inputs.split)
    if not is_main_process():
        if shared and process_rank() == 1:
            measure_reward_model(recipe, directory, inputs, card_file)
        return
    from reward_models.scorer import LearnedReward
    from toolkit.evaluation.stage import evaluate_systems
    from toolkit.evaluation.summary import summary_table

    reward = LearnedReward.load(recipe.reward_model) if recipe.reward_model else None
    card = None
    if shared:
        card = partial(awaited_card, card_file, directory)
    elif reward is not None:
        card = partial(reward_card, recipe, reward)
        inputs = with_on_policy_pairs(recipe, directory, inputs)
    if recipe.best_of_n is not None and reward is not None:
        write_best_of_n(recipe, recipe.best_of_n, reward, directory)
    summary = evaluate_systems(recipe, directory, inputs=inputs, reward=reward, reward_model_card=card)
    sys.stdout.write(summary_table(summary) + "\n")


def measure_reward_model(
    recipe: EvalRecipe, directory: RunDirectory, inputs: EvaluationInputs, file: Path
) -> None:
    """Write the card of the reward model to ``file``, for the process that scores the systems meanwhile."""
    from reward_models.scorer import LearnedReward

    pairs = with_on_policy_pairs(recipe, directory, inputs).pairs
    card = reward_card(recipe, LearnedReward.load(str(recipe.reward_model)), pairs)
    atomic_write_text(file, json.dumps(json_safe(card)) + "\n")


def with_on_policy_pairs(
    recipe: EvalRecipe, directory: RunDirectory, inputs: EvaluationInputs
) -> EvaluationInputs:
    """``inputs`` with pairs of a system's own samples, where the recipe wants them."""
    spec = recipe.on_policy_pairs
    return inputs if spec is None else inputs.with_pairs(on_policy_pairs(recipe, spec, directory))


def awaited_card(file: Path, directory: RunDirectory, rows: Sequence[PreferenceRow]) -> dict[str, Any]:
    """What the second process found; if it dies, the launcher ends this process too."""
    while not file.exists():
        directory.stop.raise_if_requested("evaluation stopped; decoded batches are kept")
        time.sleep(0.1)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


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


def sampled(
    recipe: EvalRecipe, spec: OnPolicyPairsSpec | BestOfNSpec, field: str, number: int, file: Path
) -> tuple[Sequence[PromptRow], list[list[str]]]:
    """The first caption prompts of the test data, and ``number`` completions of each by the system of ``spec``."""
    from reward_models.on_policy import sample_completions
    from toolkit.data.sources import load_prompt_rows
    from toolkit.models.loading import load_vlm

    system = next((system for system in recipe.systems if system.name == spec.system), None)
    if system is None:
        names = ", ".join(system.name for system in recipe.systems)
        raise RecipeError("recipe", f"{field}.system: expected one of {names}, found {spec.system!r}")
    captions = [source for source in recipe.data.test if source.kind == "caption"]
    rows = load_prompt_rows(captions, Path(recipe.data.root))[: spec.images]
    file.parent.mkdir(exist_ok=True)
    generation = GenerationSpec(
        max_new_tokens=recipe.generation.max_new_tokens,
        temperature=spec.temperature,
        batch_size=recipe.generation.batch_size,
    )
    vlm = load_vlm(system.model, trainable=False)
    seed = recipe.run.seed
    return rows, sample_completions(vlm, rows, number=number, generation=generation, seed=seed, file=file)


def write_best_of_n(
    recipe: EvalRecipe, spec: BestOfNSpec, reward: LearnedReward, directory: RunDirectory
) -> None:
    """Write ``best_of_n.json``: the held-out criterion as the reward model chooses among more and more."""
    from recipes.preferences import metric_rater, scene_rater
    from reward_models.best_of_n import measure_best_of_n

    folder = directory.path / "best_of_n"
    rows, completions = sampled(recipe, spec, "best_of_n", spec.samples, folder / "completions.jsonl")
    cider = metric_rater(rows)
    scenes = [Path(recipe.data.root) / recipe.scenes] if recipe.scenes is not None else None
    criterion = scene_rater(scenes, rows) if scenes is not None else cider
    measured = measure_best_of_n(reward, rows, completions, criterion, {"cider": cider} if scenes else {})
    named = {"system": spec.system, "criterion": "scenes" if scenes else "cider", **measured}
    atomic_write_text(directory.path / "best_of_n.json", json.dumps(json_safe(named), indent=2) + "\n")


def on_policy_pairs(
    recipe: EvalRecipe, spec: OnPolicyPairsSpec, directory: RunDirectory
) -> Sequence[PreferenceRow]:
    """Sample a system on test pictures and rank by the scenes' criterion: pairs for the reward card."""
    from recipes.preferences import scene_rater
    from reward_models.on_policy import ranked_pairs
    from toolkit.data.writing import write_preference_rows

    if recipe.scenes is None:
        problem = "on_policy_pairs: the scenes' criterion ranks them, and scenes is not given"
        raise RecipeError("recipe", problem)
    folder = directory.path / "on_policy"
    rows, completions = sampled(
        recipe, spec, "on_policy_pairs", spec.completions_per_prompt, folder / "completions.jsonl"
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
