"""What a run says when memory does not suffice: bytes by part, and the settings that help most."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from toolkit.config.schema import RlRecipe
from toolkit.errors import RunFailed
from toolkit.models.roles import role_parameters, roles_of
from toolkit.rewards.composite import CompositeReward
from toolkit.rl.engine import Engine

__all__ = ["memory_by_part", "out_of_memory"]


def memory_by_part(engine: Engine, reward: CompositeReward | None = None) -> dict[str, int]:
    """Bytes of this process's weights by role, gradients and optimizer state; on a GPU also what torch holds.

    A term of ``reward`` whose model has a base of its own is a part too; what lies on the policy's base is counted
    there, as a role.
    """
    module = engine.module
    roles = {
        f"adapter {name}": _bytes(parameter for _, parameter in role_parameters(module.model, name))
        for name in roles_of(module.model)
    }
    heads = _bytes(parameter for _, parameter in module.head_parameters())
    trained = [parameter for _, parameter in module.trained_parameters()]
    states = engine.optimizer.state.values() if hasattr(engine.optimizer, "state") else ()
    parts = {
        "base": _bytes(module.parameters()) - sum(roles.values()) - heads,
        **roles,
        "heads": heads,
        **_reward_models(module, reward),
        "gradients": _bytes(parameter.grad for parameter in trained if parameter.grad is not None),
        "optimizer": _bytes(
            value for state in states for value in state.values() if isinstance(value, Tensor)
        ),
    }
    if engine.device.type == "cuda":
        parts["allocated at the peak"] = torch.cuda.max_memory_allocated(engine.device)
        parts["reserved by torch"] = torch.cuda.memory_reserved(engine.device)
    return parts


def out_of_memory(
    error: BaseException, engine: Engine, recipe: RlRecipe, iteration: int, reward: CompositeReward
) -> RunFailed:
    """The message for ``error``, with three settings that lower the peak, in the order in which to try them."""
    held = memory_by_part(engine, reward)
    parts = "\n".join(f"  {name:22}{size / 2**20:10.1f} MiB" for name, size in held.items())
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    settings = ", ".join(_settings(recipe)[:3])
    return RunFailed(
        f"out of memory in iteration {iteration + 1}: {reason}\n"
        f"held by this process, without activations:\n{parts}",
        remedy=f"try {settings}",
    )


def _settings(recipe: RlRecipe) -> list[str]:
    """Settings not yet used, the strongest first: activations, then what is held all the time."""
    ppo, model, rollout = recipe.ppo, recipe.model, recipe.rollout
    found = [] if model.gradient_checkpointing else ["model.gradient_checkpointing=true"]
    rows = (
        rollout.prompts_per_iteration
        * rollout.samples_per_prompt
        // (ppo.minibatches * ppo.gradient_accumulation)
    )
    if rows > 1:
        found.append(f"ppo.gradient_accumulation={2 * ppo.gradient_accumulation}")
    if rollout.generation_batch_size > 1:
        found.append(f"rollout.generation_batch_size={rollout.generation_batch_size // 2}")
    if model.quantization is None:
        found.append("model.quantization={bits: 4}")
    if model.max_pixels is None:
        found.append("a model.max_pixels")
    return [*found, "optimizer.name=paged_adamw_8bit", "fewer rollout.max_new_tokens"]


def _reward_models(module: nn.Module, reward: CompositeReward | None) -> dict[str, int]:
    """Bytes of the terms' models that the policy's base does not hold, each weight once."""
    seen = {id(parameter) for parameter in module.parameters()}
    found: dict[str, int] = {}
    for term in reward.terms if reward is not None else ():
        for parameter in _weights(term.reward):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                name = f"reward model {term.name}"
                found[name] = found.get(name, 0) + parameter.nbytes
    return found


def _weights(reward: object) -> Iterator[nn.Parameter]:
    """Weights of a reward that holds a ``model``, or ``members`` that do."""
    model = getattr(reward, "model", None)
    if isinstance(model, nn.Module):
        yield from model.parameters()
    for member in getattr(reward, "members", ()):
        yield from _weights(member)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
