"""What the rl stage needs of its policy, its launcher and its best held-out score."""

from __future__ import annotations

import os
from pathlib import Path

from toolkit.config import schema
from toolkit.config.findings import Findings
from toolkit.config.launchers import RL_WITHOUT_FSDP, accelerate_type
from toolkit.config.messages import suggestion

__all__ = ["check_policy"]


def check_policy(recipe: schema.RlRecipe, findings: Findings, launch: str) -> None:
    """An adapter to train, evaluations where a policy is chosen by them, and a launcher that rl can run under."""
    folder, ppo = Path(recipe.model.id), recipe.ppo
    whole = (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file()
    if whole and recipe.model.lora is None:
        findings.add(
            "model.lora",
            f"the rl stage trains an adapter on a frozen base, '{recipe.model.id}' is a model without one: "
            "add model.lora, or give the adapter of an sft run as model.id",
        )
    if (folder / "reward_config.json").is_file():
        findings.add(
            "model.id", f"'{recipe.model.id}' is a reward model; expected a policy, the final/ of an sft run"
        )
    default = schema.PpoSpec().best_metric
    names = [term.name or term.term.rpartition(":")[2] for term in recipe.rewards]
    measured = [*names, "score", "mean_tokens"]
    if ppo.best_metric not in measured:
        findings.add(
            "ppo.best_metric",
            f"expected one of {', '.join(measured)}, found '{ppo.best_metric}'{suggestion(ppo.best_metric, measured)}",
        )
    chosen = [("ppo.final", "'best'")] if ppo.final == "best" else []
    chosen += [("ppo.best_metric", f"'{ppo.best_metric}'")] if ppo.best_metric != default else []
    lacking = [] if recipe.data.val else ["data.val"]
    lacking += [] if recipe.run.eval_every_steps else ["run.eval_every_steps"]
    for dotted, value in chosen if lacking else []:
        findings.add(dotted, f"{value} is chosen by held-out scores: expected {' and '.join(lacking)} too")
    # The stage's own process knows its launcher by the variable that accelerate sets.
    if accelerate_type(launch) == "FSDP" or os.environ.get("ACCELERATE_USE_FSDP") == "true":
        findings.add("stage", RL_WITHOUT_FSDP)
