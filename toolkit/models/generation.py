"""Sampling and greedy decoding of completions, from exactly the distribution that is scored later.

top_k and top_p are off and a checkpoint's own generation settings (penalties, truncation) are set aside: they
would make the sampled distribution another one than the model's, and importance ratios wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from toolkit.models.encoding import EncodedPrompt
from toolkit.models.loading import LoadedVlm
from toolkit.models.row_sampling import BatchSampler, RowSampler
from toolkit.models.shared_prefill import generation_inputs
from toolkit.models.shrinking import Sampler, decode
from toolkit.models.structure import inner_model
from toolkit.models.vision_features import with_vision_features

__all__ = ["GeneratedCompletion", "generate"]


@dataclass(frozen=True)
class GeneratedCompletion:
    """One decoded completion.

    Attributes:
        token_ids: (T,) on the CPU, the end token included when there is one.
        ended: the model wrote an end token before ``max_new_tokens`` ran out.
        text: the decoded text without special tokens, stripped.
        logprobs: (T,) what the sampler says it drew the tokens with, where that is another program than this one.
    """

    token_ids: Tensor
    ended: bool
    text: str
    logprobs: Tensor | None = None


def generate(
    vlm: LoadedVlm,
    prompts: Sequence[EncodedPrompt],
    *,
    max_new_tokens: int,
    temperature: float,
    num_samples: int = 1,
    batch_size: int = 64,
    seed: int | None = None,
    row_seeds: Sequence[int] | None = None,
    num_beams: int = 1,
    share_prefill: bool = True,
) -> list[GeneratedCompletion]:
    """Complete every prompt ``num_samples`` times under the active role.

    Args:
        temperature: 0 decodes greedily; otherwise logits are divided by it.
        batch_size: rows decoded together.
        seed: seed of the samples, leaving torch's global random state as it was; without it the global one is
            used.
        row_seeds: a seed for every completion instead, ``len(prompts) * num_samples`` of them: each is then a
            function of its own prompt and seed, whatever is decoded beside it (``RowSampler``).
        num_beams: more than 1 searches with so many beams; only with temperature 0.
        share_prefill: samples of a prompt that are decoded together pass it through the language model once
            (``generation_inputs``); logits differ by rounding at most.

    Returns:
        ``len(prompts) * num_samples`` completions: all samples of the first prompt, then those of the second,
        … Image placeholders are never sampled. The model's training mode is restored.
    """
    config = _generation_config(vlm, max_new_tokens)
    config.num_beams = num_beams
    if num_samples > 1:  # the tower need not see a picture once for every sample
        prompts = with_vision_features(vlm, prompts, batch_size=batch_size)
    rows = [prompt for prompt in prompts for _ in range(num_samples)]
    completions: list[GeneratedCompletion] = []
    with torch.no_grad(), _evaluating(inner_model(vlm.model)) as inner, _seeded(seed, vlm.device):
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            # The same way for all batches of a call, so that a row does not round differently beside other rows.
            inputs, positions = generation_inputs(
                vlm, chosen, share=share_prefill and num_samples > 1 and num_beams == 1
            )
            if num_beams > 1:
                new = inner.generate(**inputs, generation_config=config)[:, inputs["input_ids"].shape[1] :]
            else:
                seeds = None if row_seeds is None else row_seeds[start : start + batch_size]
                sampler = _sampler(vlm, len(chosen), temperature, seeds, max_new_tokens)
                new = decode(inner, inputs, positions, config, sampler)
            completions += [_completion(vlm, row) for row in new.cpu()]
    return completions


def _generation_config(vlm: LoadedVlm, max_new_tokens: int) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        suppress_tokens=vlm.family.placeholder_ids(vlm.processor) or None,
        pad_token_id=vlm.tokenizer.pad_token_id,
        eos_token_id=sorted(vlm.eos_ids),
        use_cache=True,
        do_sample=False,  # what is sampled, is sampled by a logits processor
    )


def _sampler(
    vlm: LoadedVlm, rows: int, temperature: float, row_seeds: Sequence[int] | None, max_new_tokens: int
) -> Sampler | None:
    if temperature <= 0:
        return None
    if row_seeds is not None:
        return RowSampler(row_seeds, max_new_tokens=max_new_tokens, temperature=temperature)
    return BatchSampler(rows, temperature=temperature, device=vlm.device)


@contextmanager
def _evaluating(inner: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Evaluation mode (dropout off, cache on) without the checkpoint's own generation settings."""
    modes = [(module, module.training) for module in inner.modules()]
    own = inner.generation_config
    inner.eval()
    inner.generation_config = GenerationConfig()
    try:
        yield inner
    finally:
        inner.generation_config = own
        for module, training in modes:
            module.training = training


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    cuda = [device] if device.type == "cuda" else []
    with nullcontext() if seed is None else torch.random.fork_rng(devices=cuda):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def _completion(vlm: LoadedVlm, row: Tensor) -> GeneratedCompletion:
    ends = torch.isin(row, torch.tensor(sorted(vlm.eos_ids))).nonzero()
    ended = len(ends) > 0
    ids = row[: int(ends[0]) + 1].clone() if ended else row.clone()
    return GeneratedCompletion(ids, ended, vlm.tokenizer.decode(ids, skip_special_tokens=True).strip())
