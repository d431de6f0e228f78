"""Pairs from a policy's own completions: which are kept, which labels flip, what a kill leaves."""

import json

import pytest

from reward_models.on_policy import _finished_batches, ranked_pairs
from toolkit.records import PromptRow, image_prompt


def row(number: int) -> PromptRow:
    return PromptRow(
        sample_id=f"r{number}",
        task="caption",
        prompt=image_prompt("Describe."),
        images=(b"",),
        image_id=number,
    )


def by_length(_row, texts):
    return [len(text) for text in texts]


def test_widest_gap_first_and_ties_give_nothing():
    pairs = ranked_pairs(
        [row(1), row(2)],
        [["a", "bbb", "cc", "bbb"], ["x", "y"]],
        by_length,
        pairs_per_prompt=2,
        flip_fraction=0.0,
        seed=0,
    )
    assert [(p.chosen, p.rejected) for p in pairs] == [("bbb", "a"), ("bbb", "cc")]
    assert len({p.sample_id for p in pairs}) == 2
    assert all(p.source == "on_policy" and p.images == (b"",) for p in pairs)


def test_an_empty_completion_is_in_no_pair():
    assert not ranked_pairs([row(1)], [["", "a"]], by_length, pairs_per_prompt=1, flip_fraction=0.0, seed=0)


def test_flips_are_the_asked_share():
    rows = [row(number) for number in range(2000)]
    pairs = ranked_pairs(rows, [["a", "bb"]] * 2000, by_length, pairs_per_prompt=1, flip_fraction=0.1, seed=0)
    assert sum(pair.chosen == "a" for pair in pairs) / len(pairs) == pytest.approx(0.1, abs=0.02)


def test_a_line_cut_by_a_kill_is_sampled_again(tmp_path):
    file = tmp_path / "completions.jsonl"
    file.write_text(json.dumps([["a", "b"]]) + "\n" + '[["c", ')
    assert _finished_batches(file) == [[["a", "b"]]]
    assert _finished_batches(tmp_path / "missing.jsonl") == []
