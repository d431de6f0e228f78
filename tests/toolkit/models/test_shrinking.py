"""Rows that have ended leave the batch: the same tokens as from one call of ``generate``, from fewer rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from toolkit.config.schema import ModelSpec, QuantizationSpec
from toolkit.models import shrinking
from toolkit.models.encoding import EncodedPrompt, collate
from toolkit.models.families.family import Family
from toolkit.models.generation import generate
from toolkit.models.loading import LoadedVlm, load_vlm
from toolkit.models.row_sampling import BatchSampler
from toolkit.models.structure import inner_model, output_head

from .conftest import samples

NEW = 24


def with_many_ends(vlm: LoadedVlm) -> LoadedVlm:
    """The model, with every sixth token of its vocabulary for an end: completions of one token to two dozen."""
    ending = replace(vlm)
    placeholders = set(vlm.family.placeholder_ids(vlm.processor))
    vars(ending)["eos_ids"] = frozenset(range(7, len(vlm.tokenizer), 6)) - placeholders
    return ending


@pytest.fixture
def ending(vlm: LoadedVlm) -> LoadedVlm:
    return with_many_ends(vlm)


@contextmanager
def rows_of_forwards(vlm: LoadedVlm) -> Iterator[list[int]]:
    """How many rows every forward within has."""
    seen: list[int] = []
    handle = output_head(vlm.model).register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    try:
        yield seen
    finally:
        handle.remove()


def plainly(
    vlm: LoadedVlm, prompts: Sequence[EncodedPrompt], temperature: float, seed: int
) -> list[list[int]]:
    """What transformers' own loop gives for the whole batch."""
    sampling: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    config = GenerationConfig(
        max_new_tokens=NEW, suppress_tokens=vlm.family.placeholder_ids(vlm.processor),
        pad_token_id=vlm.tokenizer.pad_token_id, eos_token_id=sorted(vlm.eos_ids),
        **(sampling if temperature else {"do_sample": False}),
    )  # fmt: skip
    inputs = collate(vlm, prompts, padding_side="left").model_inputs()
    torch.manual_seed(seed)
    output = inner_model(vlm.model).generate(**inputs, generation_config=config)
    found = []
    for row in output[:, inputs["input_ids"].shape[1] :]:
        ends = torch.isin(row, torch.tensor(sorted(vlm.eos_ids))).nonzero()
        found.append(row[: int(ends[0]) + 1 if len(ends) else None].tolist())
    return found


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_tokens_are_those_of_one_call(ending: LoadedVlm, temperature: float) -> None:
    prompts = samples(ending)[0] * 8
    expected = plainly(ending, prompts, temperature, seed=3)
    with rows_of_forwards(ending) as rows:
        found = generate(ending, prompts, max_new_tokens=NEW, temperature=temperature, batch_size=64, seed=3)
    assert [item.token_ids.tolist() for item in found] == expected
    if temperature:
        assert len({len(ids) for ids in expected}) > 4
        assert len(set(rows)) > 2, "rows have left"
        assert sum(rows) < 0.6 * len(prompts) * len(rows)


@pytest.mark.parametrize("by_row", [False, True])
def test_rows_leave_behind_a_shared_prefill_too(
    ending: LoadedVlm, monkeypatch: pytest.MonkeyPatch, by_row: bool
) -> None:
    prompts = samples(ending)[0]
    settings: dict[str, Any] = {"max_new_tokens": NEW, "temperature": 1.0, "num_samples": 8, "batch_size": 64}
    settings |= {"row_seeds": list(range(8 * len(prompts)))} if by_row else {"seed": 5}
    with rows_of_forwards(ending) as rows:
        found = generate(ending, prompts, **settings)
    monkeypatch.setattr(shrinking, "ENDED_SHARE", 2.0)  # more than all of them
    whole = generate(ending, prompts, **settings)
    assert len(set(rows)) > 2
    assert [item.token_ids.tolist() for item in found] == [item.token_ids.tolist() for item in whole]


def test_four_bit_weights_decode_the_same(directories: dict[str, Any]) -> None:
    spec = ModelSpec(id=str(directories["llava"]), quantization=QuantizationSpec())
    vlm = with_many_ends(load_vlm(spec, trainable=False))
    prompts = samples(vlm)[0] * 8
    found = generate(vlm, prompts, max_new_tokens=NEW, temperature=1.0, batch_size=64, seed=3)
    assert [item.token_ids.tolist() for item in found] == plainly(vlm, prompts, 1.0, seed=3)


def test_nothing_leaves_where_only_the_model_knows_positions(directories: dict[str, Any]) -> None:
    vlm = with_many_ends(load_vlm(ModelSpec(id=str(directories["llava"])), trainable=False))
    vlm = replace(vlm, family=Family(vlm.family.config))
    vars(vlm)["eos_ids"] = with_many_ends(vlm).eos_ids
    prompts = samples(vlm)[0] * 8
    with rows_of_forwards(vlm) as rows:
        found = generate(vlm, prompts, max_new_tokens=NEW, temperature=1.0, batch_size=64, seed=3)
    assert set(rows) == {len(prompts)}
    assert [item.token_ids.tolist() for item in found] == plainly(vlm, prompts, 1.0, seed=3)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_draws_are_those_of_multinomial(temperature: float) -> None:
    logits = torch.randn(40, 300, generator=torch.Generator().manual_seed(0)) * 3
    logits[:, 17] = -torch.inf
    sampler = BatchSampler(40, temperature=temperature, device=torch.device("cpu"))
    left = torch.arange(40)
    for step in range(6):
        torch.manual_seed(step)
        expected = torch.multinomial(torch.softmax(logits / temperature, dim=-1), 1)[left]
        torch.manual_seed(step)
        only = sampler(torch.empty(len(left), 1), logits[left])
        assert torch.equal(only.argmax(dim=-1, keepdim=True), expected)
        assert torch.isfinite(only).sum() == len(left)
        chosen = torch.arange(0, len(left), 2) if len(left) > 3 else torch.arange(len(left))
        sampler.keep(chosen)
        left = left[chosen]
