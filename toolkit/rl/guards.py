"""Guard rails: checks that turn silent failures of an RL run into a message, with a checkpoint where it stops."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from toolkit.config.schema import GuardSpec
from toolkit.errors import RunFailed
from toolkit.models.encoding import EncodedPrompt
from toolkit.models.loading import LoadedVlm
from toolkit.models.packing import prompt_runs
from toolkit.rl.rollout import Rollout, RolloutWorker

__all__ = [
    "GAP_ROWS",
    "RewardsFailed",
    "check_failed",
    "check_first_update",
    "check_start",
    "check_vision_gap",
    "swapped",
    "vision_gap",
]

logger = logging.getLogger("vlm_rlhf.rl")

GAP_ROWS = 32
# Equal weights and equal inputs differ by rounding only; half precision rounds at 1e-2.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.2}


def vision_gap(worker: RolloutWorker, rollout: Rollout) -> tuple[float, int]:
    """Sum over completions of log-prob with the own image minus with another row's, and their number.

    Nats a completion, over one completion of each of the first ``GAP_ROWS`` prompts of this process. Near zero means
    that the policy does not look. To be measured before the weights that made ``rollout`` move: what an update adds to
    the log-probabilities of its own completions is no gap. Rows without a partner of another picture but equal image
    size are left out. One forward whatever the rows, so that all processes make the same number of calls.
    """
    rows = [run[0] for run in prompt_runs(rollout.prompts, longest=len(rollout))][:GAP_ROWS]
    prompts, found = swapped([rollout.prompts[i] for i in rows], [rollout.rows[i].image_id for i in rows])
    with torch.no_grad():
        batch = worker.join(prompts, [rollout.completions[i].token_ids for i in rows])
        output = worker.engine.prepared(batch, temperature=rollout.temperature)
    width = output.logprobs.shape[1]
    difference = (rollout.logprobs[rows, :width] - output.logprobs).mul(rollout.mask[rows, :width]).sum(1)
    return float(difference[torch.tensor(found, device=difference.device)].sum()), sum(found)


def swapped(
    prompts: Sequence[EncodedPrompt], image_ids: Sequence[int | str]
) -> tuple[list[EncodedPrompt], list[bool]]:
    """Each prompt with the picture of the next row that has another one of the same size, and whether there is one."""
    size, result, found = len(prompts), [], []
    for index, prompt in enumerate(prompts):
        candidates = ((index + step) % size for step in range(1, size))
        partner = next(
            (i for i in candidates if image_ids[i] != image_ids[index] and _exchangeable(prompt, prompts[i])),
            None,
        )
        found.append(partner is not None and bool(prompt.image_inputs))
        other = prompts[partner] if partner is not None else prompt
        result.append(replace(prompt, image_inputs=other.image_inputs, features=other.features))
    return result, found


def _exchangeable(first: EncodedPrompt, second: EncodedPrompt) -> bool:
    """Equal shapes, and equal values of what is no pixel (grids fix the number of image tokens)."""
    if first.image_inputs.keys() != second.image_inputs.keys():
        return False
    return all(
        value.shape == second.image_inputs[key].shape
        and (value.is_floating_point() or torch.equal(value, second.image_inputs[key]))
        for key, value in first.image_inputs.items()
    )


def check_vision_gap(gap_nats: float, spec: GuardSpec) -> str | None:
    """The reason to stop, or None. Warns where the recipe says so. A gap that could not be measured passes."""
    limit = spec.vision_gap_min_nats
    if spec.vision_gap_action == "off" or limit is None or math.isnan(gap_nats) or gap_nats > limit:
        return None
    text = f"vision gap {gap_nats:.3f} nats a completion, not above {limit}: the policy does not look at the image"
    if spec.vision_gap_action == "stop":
        return text
    logger.warning("%s", text)
    return None


class RewardsFailed(RunFailed):
    """Too many rewards of an iteration failed for it to be trained on. Raised on all processes together."""


def check_failed(failed: Mapping[str, float], completions: float, spec: GuardSpec) -> None:
    """At most ``failed_fraction_max`` of the ``completions`` of all processes have no score because a reward failed.

    Args:
        failed: how many failed, over all processes: ``total``, and by the name of each term.

    Raises:
        RewardsFailed: more did, with the terms at fault.
    """
    if failed["total"] <= spec.failed_fraction_max * completions:
        return
    terms = {name: count / completions for name, count in failed.items() if name != "total" and count}
    told = ", ".join(f"{name} on {share:.1%}" for name, share in terms.items())
    share, limit = failed["total"] / completions, f"guards.failed_fraction_max {spec.failed_fraction_max:.1%}"
    raise RewardsFailed(
        f"{share:.1%} of the rewards failed, more than {limit} ({told or 'the greedy baseline'})",
        remedy="find out why (a service that is down, a function that returns NaN); --resume does the iteration again",
    )


def check_start(vlm: LoadedVlm, kl_largest: float) -> None:
    """Before the first update ``|log policy - log reference|`` of a token is at most rounding.

    Raises:
        RunFailed: it is not. The reference would punish the policy for being itself.
    """
    _check_small(vlm, kl_largest, "policy and reference differ before the first update")


def check_first_update(vlm: LoadedVlm, ratio_error: float, *, missing: Sequence[str]) -> None:
    """On the first minibatch the importance ratio is 1, and every trainable parameter gets a gradient.

    Raises:
        RunFailed: one of both is not so.
    """
    if missing:
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise RunFailed(f"{len(missing)} trainable parameters got no gradient on the first update: {shown}")
    _check_small(vlm, ratio_error, "the importance ratio does not start at 1")


def _check_small(vlm: LoadedVlm, found: float, text: str) -> None:
    dtype = next(p.dtype for p in vlm.model.parameters() if p.is_floating_point() and not p.requires_grad)
    limit = _TOLERANCE.get(dtype, 1e-3)
    if not found <= limit:
        raise RunFailed(
            f"{text}: a token's log-probabilities differ by {found:.2e}, at most {limit:.0e} is rounding ({dtype})"
        )
