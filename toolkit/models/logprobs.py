"""Log-probabilities of completions, with the output head applied to their positions only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toolkit.models.encoding import CompletionPlaces, VlmBatch
from toolkit.models.structure import inner_model, output_head, trunk

__all__ = ["CompletionScores", "completion_logprobs", "score_completions"]


@dataclass(frozen=True)
class CompletionScores:
    """Per-token results of one forward, a row a completion; T is the longest, rows start at their first token.

    Attributes:
        logprobs: (B, T) float32 log-probabilities of the tokens; 0 where ``mask`` is False.
        mask: (B, T) bool.
        hidden: (B, T, hidden) states that predict each token: the state before it. Input of a value head.
        entropy: (B, T) float32 in nats, or None unless asked for; 0 where ``mask`` is False.
    """

    logprobs: Tensor
    mask: Tensor
    hidden: Tensor
    entropy: Tensor | None = None


def completion_logprobs(
    model: nn.Module, batch: VlmBatch, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """(log-probabilities (B, T) float32, mask (B, T) bool) of the completions under the active role."""
    scores = score_completions(model, batch, temperature=temperature)
    return scores.logprobs, scores.mask


def score_completions(
    model: nn.Module,
    batch: VlmBatch,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    entropy_gradient: bool = True,
) -> CompletionScores:
    """One forward of the model without its output head, then the head on the completion positions alone.

    Args:
        model: the model, a PEFT model around it, or an engine around that; runs in its current mode and role.
        batch: prompts with completions, padded on either side, or several completions behind one prompt.
        temperature: logits are divided by it: log-probabilities of the distribution that was sampled from.
        entropy: also compute the entropy of the distribution at every position.
        entropy_gradient: its gradient is wanted too; without it nothing of the size of the vocabulary is kept for it.
    """
    hidden = trunk(model)(**batch.model_inputs(), use_cache=False, return_dict=True).last_hidden_state
    places = batch.places or _places(batch.completion_mask)
    sequence, mask = places.sequence.unsqueeze(1), places.mask
    before = hidden[sequence, places.before]
    tokens = batch.inputs["input_ids"][sequence, places.at]
    logits = _scaled(model, output_head(model)(before)).float() / temperature
    normaliser = logits.logsumexp(-1)
    logprobs = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - normaliser
    spread = None
    if entropy:
        kept, total = (logits, normaliser) if entropy_gradient else (logits.detach(), normaliser.detach())
        spread = total - (kept.softmax(-1) * kept).sum(-1)
    return CompletionScores(
        logprobs=logprobs.masked_fill(~mask, 0.0),
        mask=mask,
        hidden=before,
        entropy=None if spread is None else spread.masked_fill(~mask, 0.0),
    )


def _places(completion_mask: Tensor) -> CompletionPlaces:
    """Those of one completion a sequence, from the mask (B, L) of its tokens."""
    lengths = completion_mask.sum(1)
    steps = torch.arange(int(lengths.max()), device=completion_mask.device)
    start = completion_mask.int().argmax(1, keepdim=True)
    mask = steps < lengths.unsqueeze(1)
    at = torch.where(mask, start + steps, 0)
    return CompletionPlaces(torch.arange(len(at), device=at.device), (at - 1).clamp(min=0), at, mask)


def _scaled(model: nn.Module, logits: Tensor) -> Tensor:
    """Logits with the soft cap that some language models (Gemma) put on them."""
    cap = getattr(inner_model(model).config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)
