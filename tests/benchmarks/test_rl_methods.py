"""The methods that are compared differ in what they are said to differ in, and cost as many rollouts each."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from toolkit.config.schema import RlRecipe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CHAIN = Path("out/seeds/seed-1")


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import rl_methods_recipes

    return rl_methods_recipes


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import rl_methods_tables

    return rl_methods_tables


def built(recipes: ModuleType, *, iterations: int | None = None) -> dict[str, RlRecipe]:
    return {
        name: recipes.rl_recipe(name, CHAIN, Path("out/x") / name, seed=1, iterations=iterations)
        for name in recipes.METHODS
    }


def test_every_method_has_the_same_budget_start_and_seed(recipes: ModuleType) -> None:
    found = built(recipes)
    budgets = {
        recipe.ppo.iterations * recipe.rollout.prompts_per_iteration * recipe.rollout.samples_per_prompt
        for recipe in found.values()
    }
    assert len(budgets) == 1
    assert {(recipe.model.id, recipe.run.seed) for recipe in found.values()} == {(f"{CHAIN}/sft/final", 1)}
    assert {recipe.ppo.estimator for recipe in found.values()} == {"gae", "rloo", "grpo"}
    assert {recipe.ppo.iterations for recipe in built(recipes, iterations=3).values()} == {3}


def test_what_captions_and_questions_are_paid_by(recipes: ModuleType) -> None:
    paid = {
        name: {(term.term, tuple(term.tasks or ())) for term in recipe.rewards if term.weight}
        for name, recipe in built(recipes).items()
    }
    answers = ("vqa_accuracy", ())
    assert paid["ppo-cider"] == {("cider", ()), answers}
    assert paid["ppo-learned"] == {("learned", ("caption",)), answers}
    assert paid["ppo-composite"] == {("cider", ()), ("learned", ("caption",)), answers}
    assert paid["rloo-composite"] == paid["grpo-composite"] == paid["ppo-composite"]
    assert paid["ppo-vqa"] == {("learned", ("vqa",)), ("vqa_accuracy", ("vqa",))}
    learned = {
        term.model for recipe in built(recipes).values() for term in recipe.rewards if term.term == "learned"
    }
    assert learned == {f"{CHAIN}/reward/final"}


def test_only_one_method_trains_on_questions_alone(recipes: ModuleType) -> None:
    for name, recipe in built(recipes).items():
        kinds = {source.kind for source in [*recipe.data.train, *recipe.data.val]}
        assert kinds == ({"vqa"} if name == "ppo-vqa" else {"caption", "vqa"})


def test_the_quickstarts_run_serves_only_where_it_trained_the_same(recipes: ModuleType) -> None:
    found = built(recipes)
    moved = recipes.rl_recipe("ppo-composite", Path("elsewhere"), Path("y"), seed=1, iterations=None)
    assert recipes.same_training(found["ppo-composite"], moved)
    other_seed = recipes.rl_recipe("ppo-composite", CHAIN, Path("y"), seed=2, iterations=None)
    assert not recipes.same_training(found["ppo-composite"], other_seed)
    assert not recipes.same_training(found["ppo-composite"], found["ppo-cider"])


def test_a_system_is_evaluated_alone_with_its_own_and_with_shuffled_pictures(recipes: ModuleType) -> None:
    recipe = recipes.eval_recipe("dpo", CHAIN / "dpo" / "final", CHAIN, Path("z"), seed=1)
    assert [system.name for system in recipe.systems] == [recipe.blind_from] == ["dpo"]
    assert recipe.systems[0].model.quantization is not None
    assert recipe.generation.strategy == "greedy"
    assert (recipe.differences, recipe.preference_pairs, recipe.on_policy_pairs) == ([], [], None)


def test_tables_show_every_seed_and_what_is_missing(tables: ModuleType) -> None:
    interval = {"mean": 0.1, "low": -0.05, "high": 0.25}
    differences = dict.fromkeys(tables.PAIRED, interval)
    system = {
        "scores": dict.fromkeys(tables.COLUMNS, 1.5),
        "vision_gap": differences,
        "minus_sft": differences,
    }
    trained = {**system, "rollouts": 6720, "seconds": 165.0, "warnings": None}
    seeds = {seed: {"sft": system, "ppo-composite": trained} for seed in (0, 2)}
    found = {"seeds": seeds, "aims": {0: {"cider_gain": 0.21}, 2: {}}}
    scores, minus, gaps, runs, aims = tables.tables(found)
    assert scores.count("| sft |") == 2
    assert minus.count("0.100 [-0.050, 0.250]") == 2 * len(tables.PAIRED)
    assert "| 2 | ppo-composite | 0.100" in gaps
    assert "| 2 | ppo-composite | 6720 | 165.0 | not recorded |" in runs
    assert "| cider_gain | 0.210 | – |" in aims
