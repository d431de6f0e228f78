"""Settings of the sampling backend that contradict each other, or that nothing would read."""

from __future__ import annotations

from toolkit.config import schema
from toolkit.config.findings import Findings

__all__ = ["check_backend"]

_MISMATCH_MAX_NATS = schema.VllmSpec().mismatch_max_nats


def check_backend(recipe: schema.RlRecipe, findings: Findings) -> None:
    """What sampling with vLLM needs of the recipe, and its block where nothing samples with vLLM."""
    rollout = recipe.rollout
    if rollout.backend != "vllm":
        if rollout.vllm is not None:
            findings.add("rollout.vllm", f"is read with rollout.backend 'vllm', found '{rollout.backend}'")
        return
    if rollout.vllm is None:
        return
    # By its value: a resolved recipe, which may be run again, names every key.
    if rollout.vllm.mismatch_action == "off" and rollout.vllm.mismatch_max_nats != _MISMATCH_MAX_NATS:
        findings.add("rollout.vllm.mismatch_max_nats", "mismatch_action is 'off': take the line out")
