"""Whether the sizes of a recipe can be split over minibatches and processes."""

from __future__ import annotations

from toolkit.config.schema import RlRecipe
from toolkit.errors import RecipeError

__all__ = ["batch_sizes", "check_sizes"]


def check_sizes(recipe: RlRecipe, *, rows: int, world: int, zero_stage: int = 0) -> None:
    """Every process takes whole prompts, and every minibatch an equal share of each process's samples.

    Raises:
        RecipeError: with all that does not fit ``world`` processes.
    """
    ppo, rollout = recipe.ppo, recipe.rollout
    problems = []
    if not rows:
        problems.append("data.train: no prompts")
    if rollout.prompts_per_iteration % world:
        problems.append(f"rollout.prompts_per_iteration must divide by the {world} processes")
    total = rollout.prompts_per_iteration * rollout.samples_per_prompt
    parts = ppo.minibatches * ppo.gradient_accumulation * world
    if total % parts:
        problems.append(
            f"prompts_per_iteration × samples_per_prompt = {total} must divide by minibatches × "
            f"gradient_accumulation × processes = {parts}"
        )
    if zero_stage == 3 and recipe.kl.refresh_reference_every_iterations is not None:
        problems.append(
            "kl.refresh_reference_every_iterations: ZeRO-3 splits the reference's weights; use ZeRO-2"
        )
    if problems:
        raise RecipeError("rl", problems)


def batch_sizes(recipe: RlRecipe) -> dict[str, int]:
    """The engine's: completions in one forward with gradients over all processes, and backwards an optimizer step."""
    ppo, rollout = recipe.ppo, recipe.rollout
    total = rollout.prompts_per_iteration * rollout.samples_per_prompt
    micro = max(1, total // (ppo.minibatches * ppo.gradient_accumulation))
    return {"micro_batch": micro, "accumulation": ppo.gradient_accumulation}
