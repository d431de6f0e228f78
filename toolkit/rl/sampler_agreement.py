"""Another program drew the tokens: how far its log-probabilities are from ours, and what makes up for it.

The importance ratios of phase 8 are over our own forward's log-probabilities, as ever; the tokens came from the
server's distribution. Rounding, other kernels or another quantisation make the two differ; a stale adapter or lost
pixels make them differ much.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import Tensor

from toolkit.config.schema import RolloutSpec, VllmSpec
from toolkit.rl.engine import Engine
from toolkit.rl.experience import Experience
from toolkit.rl.rollout import Rollout
from toolkit.rl.vllm_sampler import SamplerFailed

__all__ = ["importance_weighted", "in_agreement", "mismatch"]

_logger = logging.getLogger("vlm_rlhf.rl")


def mismatch(rollout: Rollout) -> tuple[float, float] | None:
    """Sum over sampled tokens of ``|ours - sampler's|`` log-probability in nats, and their number; None without one."""
    theirs = _sampler_logprobs(rollout)
    if theirs is None:
        return None
    difference = (rollout.logprobs - theirs).abs() * rollout.mask
    return float(difference.sum(dtype=torch.float64)), float(rollout.mask.sum())


def in_agreement(rollout: Rollout, engine: Engine, spec: RolloutSpec) -> Rollout:
    """``rollout``; acts as the recipe says where its mean mismatch over all processes is too large. All call it.

    Raises:
        SamplerFailed: it is, and ``rollout.vllm.mismatch_action`` is ``stop``.
    """
    settings, found = spec.vllm or VllmSpec(), mismatch(rollout)
    if found is None or settings.mismatch_action == "off":
        return rollout
    total, tokens = engine.all_sum(torch.tensor(found, dtype=torch.float64)).tolist()
    mean = total / max(tokens, 1.0)
    if mean <= settings.mismatch_max_nats:
        return rollout
    text = (
        f"the sampling server's log-probabilities are {mean:.3g} nats a token from ours, above "
        f"rollout.vllm.mismatch_max_nats {settings.mismatch_max_nats:g}"
    )
    remedy = (
        "it serves other weights (another base, dtype or quantisation, an old adapter), sees other pixels, or runs "
        "without --logprobs-mode processed_logprobs; docs/vllm.md says how to tell"
    )
    if settings.mismatch_action == "stop":
        raise SamplerFailed(text, remedy=remedy)
    _logger.warning("%s: %s", text, remedy)
    return rollout


def importance_weighted(experience: Experience, spec: RolloutSpec) -> Experience:
    """Each token's advantage times ``min(ours / sampler's, cap)``: truncated importance sampling (Yao et al. 2025).

    The policy loss is linear in the advantage, so this weights the loss; returns, and with them the critic, stay.
    """
    cap = (spec.vllm or VllmSpec()).importance_cap
    theirs = _sampler_logprobs(experience.rollout)
    if theirs is None or cap is None:
        return experience
    weights = torch.exp(experience.rollout.logprobs - theirs).clamp(max=cap)
    return replace(experience, advantages=experience.advantages * weights)


def _sampler_logprobs(rollout: Rollout) -> Tensor | None:
    """``(B, T)``, ours on padding; None where the completions were drawn by our own forward."""
    theirs = rollout.logprobs.clone()
    for row, item in enumerate(rollout.completions):
        if item.logprobs is None:
            return None
        theirs[row, : len(item.logprobs)] = item.logprobs.to(theirs)
    return theirs
