"""The recipes of ``rl_methods.py``: those of ``recipes/configs/scenes`` with other rewards, data or sizes.

Every method trains from the same SFT adapter for the same number of iterations with the same number of rollouts each.
All but ``ppo-vqa`` see captions and questions as the quickstart's PPO does; ``ppo-composite`` is that run, the mixed
one. They differ in what a caption is paid for, or in the estimator; questions are paid by the annotators in all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.config.catalogue import find_recipe
from toolkit.config.loading import load_recipe
from toolkit.config.schema import EvalRecipe, RewardTerm, RlRecipe, SftRecipe
from toolkit.errors import RecipeError

COMPOSITE = "scenes/ppo"


@dataclass(frozen=True)
class Method:
    """A row of the table: its recipe, the terms that pay captions, or questions alone."""

    recipe: str
    captions: tuple[str, ...]
    told: str
    questions_only: bool = False


METHODS: Mapping[str, Method] = {
    "ppo-cider": Method(COMPOSITE, ("cider",), "PPO, captions paid by CIDEr-D"),
    "ppo-learned": Method(COMPOSITE, ("learned",), "PPO, captions paid by the reward model"),
    "ppo-composite": Method(
        COMPOSITE, ("cider", "learned"), "PPO, captions paid by both: the quickstart's mixed run"
    ),
    "rloo-composite": Method("scenes/rloo", ("cider", "learned"), "RLOO, the same reward"),
    "grpo-composite": Method("scenes/grpo", ("cider", "learned"), "GRPO, the same reward"),
    "ppo-vqa": Method(
        COMPOSITE, (), "PPO on questions alone, paid by the annotators' answers and the reward model", True
    ),
}


def sft_recipe(chain: Path, out: Path, *, steps: int) -> SftRecipe:
    """The SFT of ``chain`` with another number of steps, in ``out``."""
    path = chain / "sft" / "recipe.resolved.yaml"
    values: dict[str, Any] = {
        "model.id": str(chain / "base" / "final"),
        "data.root": str(chain / "data"),
        "trainer.max_steps": steps,
        "run.output_dir": str(out),
        "run.save_every_steps": None,
        "run.eval_every_steps": None,
    }
    recipe = load_recipe(path, values)
    if not isinstance(recipe, SftRecipe):
        raise RecipeError(str(path), f"stage: expected 'sft', found '{recipe.stage}'")
    return recipe


def rl_recipe(
    name: str, chain: Path, out: Path, *, seed: int, iterations: int | None, start: Path | None = None
) -> RlRecipe:
    """The recipe of one method.

    Args:
        name: of ``METHODS``.
        chain: a finished quickstart; reward model and data are its.
        out: the run's directory.
        seed: of the run.
        iterations: how many, where they are not the recipe's.
        start: the SFT adapter, where it is not that of ``chain``.

    Raises:
        RecipeError: the rollouts of the composite recipe cannot be split into this one's groups.
    """
    method = METHODS[name]
    composite, plain = _loaded(COMPOSITE), _loaded(method.recipe)
    rollouts = composite.rollout.prompts_per_iteration * composite.rollout.samples_per_prompt
    prompts, rest = divmod(rollouts, plain.rollout.samples_per_prompt)
    if rest:
        problem = f"{rollouts} rollouts are no whole number of groups of {plain.rollout.samples_per_prompt}"
        raise RecipeError(method.recipe, problem)
    values: dict[str, Any] = {
        "model.id": str(start or chain / "sft" / "final"),
        "data.root": str(chain / "data"),
        "rewards": [term.model_dump(mode="json") for term in _terms(method, composite, chain)],
        "rollout.prompts_per_iteration": prompts,
        "ppo.iterations": iterations or composite.ppo.iterations,
        "run.output_dir": str(out),
        "run.seed": seed,
    }
    if method.questions_only:
        for part in ("train", "val"):
            sources = [s for s in getattr(composite.data, part) if s.kind == "vqa"]
            # A limit on the training questions weighs them against captions, and there are none here.
            dumped = [source.model_dump(mode="json") for source in sources]
            values[f"data.{part}"] = [
                {**source, "limit": None} if part == "train" else source for source in dumped
            ]
    recipe = load_recipe(find_recipe(method.recipe), values)
    if not isinstance(recipe, RlRecipe):
        raise RecipeError(method.recipe, f"stage: expected 'rl', found '{recipe.stage}'")
    return recipe


def _terms(method: Method, composite: RlRecipe, chain: Path) -> list[RewardTerm]:
    """The composite's terms; those that do not pay this method's captions weigh 0, which keeps them watched."""
    found: list[RewardTerm] = []
    for term in composite.rewards:
        changes: dict[str, Any] = {"model": str(chain / "reward" / "final")} if term.term == "learned" else {}
        if method.questions_only:
            if term.term == "cider":
                continue
            changes["tasks"] = ["vqa"]
        elif term.term in ("cider", "learned") and term.term not in method.captions:
            changes["weight"] = 0.0
        found.append(term.model_copy(update=changes))
    return found


def eval_recipe(name: str, policy: Path, chain: Path, out: Path, *, seed: int) -> EvalRecipe:
    """Greedy decoding of one system on the test split of ``chain``, with its own pictures and with shuffled ones."""
    path = find_recipe("scenes/eval")
    plain = load_recipe(path)
    if not isinstance(plain, EvalRecipe):
        raise RecipeError(str(path), f"stage: expected 'eval', found '{plain.stage}'")
    model = {**plain.systems[0].model.model_dump(mode="json"), "id": str(policy)}
    values: dict[str, Any] = {
        "systems": [{"name": name, "model": model}],
        "data.root": str(chain / "data"),
        "blind_from": name,
        "reward_model": str(chain / "reward" / "final"),
        "text_only_reward_model": None,
        "preference_pairs": [],
        "on_policy_pairs": None,
        "best_of_n": None,
        "differences": [],
        "run.output_dir": str(out),
        "run.seed": seed,
    }
    recipe = load_recipe(path, values)
    return recipe if isinstance(recipe, EvalRecipe) else plain


def same_training(first: RlRecipe, second: RlRecipe) -> bool:
    """Whether both train the same policy: equal but for where files lie and what is written how often."""
    return _training(first) == _training(second)


def _training(recipe: RlRecipe) -> dict[str, Any]:
    values = recipe.model_dump(mode="json")
    values["run"] = values["run"]["seed"]
    values["model"]["id"] = values["data"]["root"] = None
    for term in values["rewards"]:
        term["model"] = None
    return values


def _loaded(name: str) -> RlRecipe:
    recipe = load_recipe(find_recipe(name))
    if not isinstance(recipe, RlRecipe):
        raise RecipeError(name, f"stage: expected 'rl', found '{recipe.stage}'")
    return recipe
