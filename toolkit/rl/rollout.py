"""Phases 1 to 4: sample completions, mark their ends, score them under policy and reference, value them."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from toolkit.config.schema import RolloutSpec
from toolkit.data.images import load_image
from toolkit.models.encoding import EncodedPrompt, VlmBatch, collate, encode_prompt
from toolkit.models.generation import GeneratedCompletion, generate
from toolkit.models.loading import LoadedVlm
from toolkit.models.packing import can_pack, collate_sharing, prompt_runs
from toolkit.models.roles import POLICY, REFERENCE, role
from toolkit.models.vision_features import with_vision_features
from toolkit.records import ImageSource, PromptRow
from toolkit.rewards.base import PictureFeatures, RewardBatch
from toolkit.rl.buckets import buckets
from toolkit.rl.engine import Engine
from toolkit.rl.vllm_sampler import VllmSampler

__all__ = ["PromptCache", "Rollout", "RolloutWorker", "derived_seed"]


def derived_seed(*parts: int | str) -> int:
    """A seed below 2**63 that is a function of ``parts`` alone: there is nothing to store for resume."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


class PromptCache:
    """Encoded prompts by row object: each picture is decoded once; over the limit the oldest go.

    Rows are told apart by identity: ``sample_id`` is unique within its file only, and data may come from
    several.
    """

    def __init__(self, vlm: LoadedVlm, *, max_bytes: int = 256 * 2**20) -> None:
        self.vlm, self.max_bytes = vlm, max_bytes
        self._held: OrderedDict[int, tuple[PromptRow, EncodedPrompt, int]] = OrderedDict()
        self._bytes = 0

    def encode(self, rows: Sequence[PromptRow]) -> list[EncodedPrompt]:
        """Encoded prompts of ``rows``, in their order, on the CPU."""
        return [self._encode(row) for row in rows]

    def _encode(self, row: PromptRow) -> EncodedPrompt:
        found = self._held.get(id(row))
        if found is not None:
            self._held.move_to_end(id(row))
            return found[1]
        prompt = encode_prompt(self.vlm, row.prompt, [load_image(source) for source in row.images])
        size = sum(part.nbytes for part in (prompt.input_ids, *prompt.image_inputs.values()))
        self._held[id(row)] = row, prompt, size  # the row is kept, so that its id stays its own
        self._bytes += size
        while self._bytes > self.max_bytes and len(self._held) > 1:
            _, (_, _, freed) = self._held.popitem(last=False)
            self._bytes -= freed
        return prompt


@dataclass
class Rollout:
    """Completions of one process with what the current weights say about them; ``(B, T)``, 0 on padding.

    ``logprobs`` are those of the behaviour policy at the sampling ``temperature``: the denominators of the
    importance ratios. ``mask`` is 1 on sampled tokens, the end token included. ``values`` are None without a
    critic.
    """

    rows: list[PromptRow]
    prompts: list[EncodedPrompt]
    completions: list[GeneratedCompletion]
    logprobs: Tensor
    reference: Tensor
    values: Tensor | None
    mask: Tensor
    temperature: float
    seconds: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def reward_batch(self) -> RewardBatch:
        """The completions as rewards take them, without the features of their pictures."""
        return reward_batch(self.rows, self.completions)


def reward_batch(
    rows: Sequence[PromptRow],
    completions: Sequence[GeneratedCompletion],
    pictures: PictureFeatures | None = None,
) -> RewardBatch:
    """Rows with their completions as rewards take them."""
    return RewardBatch(
        pictures=pictures,
        rows=list(rows),
        completions=[item.text for item in completions],
        ended=[item.ended for item in completions],
        num_tokens=[len(item.token_ids) for item in completions],
        token_ids=[item.token_ids.tolist() for item in completions],
    )


class RolloutWorker:
    """Collects rollouts of one process; with a ``sampler`` phase 1 is done there, the rest always here.

    Attributes:
        temperature: at which it samples and scores; moved by a schedule.
        shares: samples of a prompt share its forward in scoring and training.
    """

    def __init__(
        self, vlm: LoadedVlm, engine: Engine, spec: RolloutSpec, sampler: VllmSampler | None = None
    ) -> None:
        self.vlm, self.engine, self.spec, self.sampler = vlm, engine, spec, sampler
        self.temperature = spec.temperature
        self.cache = PromptCache(vlm)
        self.shares = spec.share_prompts and spec.samples_per_prompt > 1 and can_pack(vlm)

    def join(self, prompts: Sequence[EncodedPrompt], completions: Sequence[Tensor]) -> VlmBatch:
        """A batch of prompts with a completion each; the samples of a prompt share its copy, where they may."""
        return (collate_sharing if self.shares else collate)(self.vlm, prompts, completions)

    def split(
        self, prompts: Sequence[EncodedPrompt], completions: Sequence[Tensor], count: int
    ) -> list[list[int]]:
        """Row numbers in ``count`` groups of like lengths; samples that share a prompt stay together."""
        lengths = [len(prompt.input_ids) + len(ids) for prompt, ids in zip(prompts, completions, strict=True)]
        return buckets(lengths, count, prompt_runs(prompts) if self.shares else None)

    def __enter__(self) -> RolloutWorker:
        """To be used for a run; at its end nothing is left on a server."""
        return self

    def __exit__(self, *_: object) -> None:
        if self.sampler is not None:
            self.sampler.close()

    def set_progress(self, fraction: float) -> None:
        """How far the run is, 0 to 1: the temperature goes linearly from its start to its end."""
        start, end = self.spec.temperature, self.spec.final_temperature
        self.temperature = start if end is None else start + (end - start) * fraction

    def sample(
        self,
        rows: Sequence[PromptRow],
        *,
        seed: int,
        samples: int,
        row_seeds: Sequence[int] | None = None,
        alike: bool = False,
    ) -> tuple[list[EncodedPrompt], list[GeneratedCompletion]]:
        """Phases 1 and 2: ``samples`` completions a row, all of one row together, with their ends marked.

        ``row_seeds``, one a completion, take the place of ``seed``. ``alike`` says that all processes pass the same.
        Returns the prompts (``len(rows) * samples`` of them, image features attached) and the completions.
        """
        prompts = self.encoded(rows)
        drawn: dict[str, Any] = {"temperature": self.temperature, "seed": seed, "row_seeds": row_seeds}
        with self.engine.gathered(), role(self.vlm.model, POLICY):
            if self.sampler is not None:
                completions = self.sampler.sample(rows, prompts, samples=samples, alike=alike, **drawn)
            else:
                completions = generate(
                    self.vlm,
                    prompts,
                    max_new_tokens=self.spec.max_new_tokens,
                    num_samples=samples,
                    batch_size=self.spec.generation_batch_size,
                    share_prefill=self.spec.share_prompts,
                    **drawn,
                )
        return [prompt for prompt in prompts for _ in range(samples)], completions

    def encoded(self, rows: Sequence[PromptRow]) -> list[EncodedPrompt]:
        """One prompt a row, image features attached; the same rows give the same bits.

        Rows about one picture (a caption and questions, say) get the very same tensors: the tower sees it once.
        """
        pictures: dict[tuple[ImageSource, ...], dict[str, Tensor]] = {}
        with self.engine.gathered(), role(self.vlm.model, POLICY):
            prompts = [
                replace(prompt, image_inputs=pictures.setdefault(row.images, prompt.image_inputs))
                for row, prompt in zip(rows, self.cache.encode(rows), strict=True)
            ]
            return with_vision_features(self.vlm, prompts, batch_size=self.spec.generation_batch_size)

    def reward_batch(
        self,
        rows: Sequence[PromptRow],
        prompts: Sequence[EncodedPrompt],
        completions: Sequence[GeneratedCompletion],
    ) -> RewardBatch:
        """Rows with their completions as rewards take them, and the features of the prompts' pictures."""
        features = {
            row.images: prompt.features
            for row, prompt in zip(rows, prompts, strict=True)
            if prompt.features is not None
        }
        return reward_batch(rows, completions, PictureFeatures(self.vlm.model, features))

    def greedy(self, prompts: Sequence[EncodedPrompt]) -> list[GeneratedCompletion]:
        """The most likely completion of each prompt (token by token) under the policy as it is now."""
        with self.engine.gathered(), role(self.vlm.model, POLICY):
            return generate(
                self.vlm,
                prompts,
                max_new_tokens=self.spec.max_new_tokens,
                temperature=0.0,
                batch_size=self.spec.generation_batch_size,
            )

    def collect(
        self,
        rows: Sequence[PromptRow],
        *,
        seed: int,
        row_seeds: Sequence[int] | None = None,
        sampled: Callable[[RewardBatch], None] | None = None,
    ) -> Rollout:
        """Phases 1 to 4 for the rows of this process; completions of one row stand together. Seeds as in ``sample``.

        ``sampled`` is called after phase 2: what needs the completions alone can begin.
        """
        samples = self.spec.samples_per_prompt
        began = time.perf_counter()
        prompts, completions = self.sample(rows, seed=seed, samples=samples, row_seeds=row_seeds)
        ended = time.perf_counter()
        every_row = [row for row in rows for _ in range(samples)]
        if sampled is not None:
            sampled(self.reward_batch(every_row, prompts, completions))
        rollout = self.score(every_row, prompts, completions)
        rollout.seconds = {"generate": ended - began, "score": time.perf_counter() - ended}
        return rollout

    def score(
        self,
        rows: Sequence[PromptRow],
        prompts: Sequence[EncodedPrompt],
        completions: Sequence[GeneratedCompletion],
    ) -> Rollout:
        """Phases 3 and 4: what policy, reference and critic say about completions, one row and prompt each."""
        tokens = [item.token_ids for item in completions]
        logprobs, values, mask = self._score(prompts, tokens, POLICY)
        reference, _, _ = self._score(prompts, tokens, REFERENCE)
        critic = self.engine.module.critic is not None
        return Rollout(
            list(rows),
            list(prompts),
            list(completions),
            logprobs,
            reference,
            values if critic else None,
            mask,
            self.temperature,
        )

    @torch.no_grad()
    def _score(
        self, prompts: Sequence[EncodedPrompt], tokens: Sequence[Tensor], name: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities, values (zeros unless ``name`` is the policy) and mask ``(B, T)``."""
        width = max(len(ids) for ids in tokens)
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        groups = self.split(prompts, tokens, -(-len(prompts) // self.spec.generation_batch_size))
        for rows in groups:
            batch = self.join([prompts[row] for row in rows], [tokens[row] for row in rows])
            output = self.engine.prepared(
                batch, temperature=self.temperature, role_name=name, values=name == POLICY
            )
            values = torch.zeros_like(output.logprobs) if output.values is None else output.values
            parts.append((output.logprobs, values, output.mask.to(torch.float32)))
        logprobs, values, mask = (
            torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in column])
            for column in zip(*parts, strict=True)
        )
        back = torch.tensor([row for rows in groups for row in rows]).argsort().to(mask.device)
        return logprobs[back], values[back], mask[back]
