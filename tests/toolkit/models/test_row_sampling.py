"""A row's draws: from the right distribution, by its own seed alone, and never an impossible token."""

from __future__ import annotations

import torch

from toolkit.models.row_sampling import RowSampler


def test_draws_follow_the_distribution_at_the_temperature() -> None:
    logits = torch.tensor([2.0, 0.5, -1.0, 1.0])
    rows = 20_000
    sampler = RowSampler(range(rows), max_new_tokens=1, temperature=0.7)
    found = sampler(torch.zeros(rows, 3, dtype=torch.long), logits.expand(rows, 4)).argmax(1)
    share = torch.bincount(found, minlength=4) / rows
    assert torch.allclose(share, torch.softmax(logits / 0.7, 0), atol=0.015)


def test_a_row_depends_on_its_own_seed_and_step() -> None:
    scores = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    sampler = RowSampler([5, 6, 7], max_new_tokens=4, temperature=1.0)
    alone = RowSampler([7], max_new_tokens=4, temperature=1.0)
    drawn, single = [], []
    for step in range(4):
        prompt = torch.zeros(3, 10 + step, dtype=torch.long)
        drawn.append(sampler(prompt, scores)[2].argmax().item())
        single.append(alone(prompt[:1, 5:], scores[2:])[0].argmax().item())
    assert drawn == single
    assert len(set(drawn)) > 1


def test_impossible_tokens_are_never_drawn() -> None:
    scores = torch.full((500, 6), -torch.inf)
    scores[:, 2], scores[:, 4] = 0.0, 1.0
    sampler = RowSampler(range(500), max_new_tokens=1, temperature=1.0)
    found = sampler(torch.zeros(500, 1, dtype=torch.long), scores)
    assert set(found.argmax(1).tolist()) == {2, 4}
    assert torch.isinf(found).sum(1).tolist() == [5] * 500
