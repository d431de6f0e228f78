"""Decoding: greedy equals a loop over forwards, samples follow the model, placeholders never appear."""

from __future__ import annotations

import torch

from toolkit.models.encoding import collate
from toolkit.models.generation import generate
from toolkit.models.logprobs import completion_logprobs
from toolkit.models.structure import inner_model, output_head

from .conftest import samples


def test_greedy_equals_a_loop_over_forwards(vlm):
    prompts, _ = samples(vlm)
    batched = generate(vlm, prompts, max_new_tokens=6, temperature=0.0, batch_size=3)
    banned = vlm.family.placeholder_ids(vlm.processor)
    for prompt, found in zip(prompts, batched, strict=True):
        ids = torch.empty(0, dtype=torch.long)
        while len(ids) < 6 and not (len(ids) and int(ids[-1]) in vlm.eos_ids):
            with torch.no_grad():
                logits = vlm.model(**collate(vlm, [prompt], [ids]).model_inputs()).logits[0, -1]
            logits[banned] = -torch.inf
            ids = torch.cat([ids, logits.argmax(keepdim=True)])
        assert found.token_ids.tolist() == ids.tolist()
        assert found.ended == (int(ids[-1]) in vlm.eos_ids)
        assert found.text == vlm.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_samples_come_prompt_by_prompt_and_are_reproducible(vlm):
    prompts, _ = samples(vlm)
    state = torch.get_rng_state()
    runs = [
        generate(vlm, prompts, max_new_tokens=5, temperature=1.0, num_samples=3, batch_size=size, seed=7)
        for size in (64, 64)
    ]
    assert torch.equal(state, torch.get_rng_state())
    assert [c.token_ids.tolist() for c in runs[0]] == [c.token_ids.tolist() for c in runs[1]]
    assert len(runs[0]) == 12
    repeated = [prompt for prompt in prompts for _ in range(3)]
    plain = generate(vlm, repeated, max_new_tokens=5, temperature=1.0, batch_size=64, seed=7)
    assert [c.token_ids.tolist() for c in plain] == [c.token_ids.tolist() for c in runs[0]]


def test_placeholders_are_never_sampled_and_mode_is_restored(vlm):
    prompts, _ = samples(vlm)
    head, image = output_head(vlm.model), vlm.family.image_token_id
    handle = head.register_forward_hook(lambda _m, _i, out: out.index_fill(-1, torch.tensor([image]), 50.0))
    inner = inner_model(vlm.model)
    inner.train()
    settings = inner.generation_config
    try:
        completions = generate(vlm, prompts, max_new_tokens=4, temperature=1.0, seed=0)
        assert inner.training
        assert inner.generation_config is settings
    finally:
        handle.remove()
        inner.eval()
    assert not any((c.token_ids == image).any() for c in completions)


def test_settings_of_the_checkpoint_do_not_bend_the_distribution(vlm):
    prompts, _ = samples(vlm)
    expected = generate(vlm, prompts, max_new_tokens=5, temperature=1.0, seed=3)
    settings = inner_model(vlm.model).generation_config
    settings.update(repetition_penalty=5.0, top_k=1, top_p=0.1, min_p=0.5, do_sample=True)
    try:
        found = generate(vlm, prompts, max_new_tokens=5, temperature=1.0, seed=3)
    finally:
        settings.update(repetition_penalty=None, top_k=None, top_p=None, min_p=None, do_sample=None)
    assert [c.token_ids.tolist() for c in found] == [c.token_ids.tolist() for c in expected]


def test_sample_frequencies_follow_the_scored_probabilities(vlm):
    prompts, _ = samples(vlm)
    first = generate(
        vlm, prompts[:1], max_new_tokens=1, temperature=0.05, num_samples=512, batch_size=512, seed=0
    )
    tokens, counts = torch.stack([c.token_ids[0] for c in first]).unique(return_counts=True)
    likely = tokens[counts.argmax()].reshape(1)
    with torch.no_grad():
        logprob, _ = completion_logprobs(vlm.model, collate(vlm, prompts[:1], [likely]), temperature=0.05)
    share = counts.max() / 512
    assert abs(float(share) - float(logprob.exp())) < 0.1
