"""Pairs from a policy's own completions: which are kept, which labels flip, what a kill leaves."""

import argparse
import json

import pytest

from recipes.preferences import run
from reward_models.on_policy import _finished_batches, distinct, ranked_pairs
from toolkit.cli.data_pairs import add_parser, recipe_values
from toolkit.cli.stage import run_stage
from toolkit.config.loading import parse_recipe
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


def test_texts_that_differ_in_case_or_punctuation_alone_are_one():
    assert distinct([["A cat.", "a  cat", "", "a dog", "A cat."]]) == [["A cat.", "a dog"]]


def test_the_least_gap_repeated_prompts_and_nan_give_no_pair():
    options = {"pairs_per_prompt": 3, "flip_fraction": 0.0, "seed": 0}
    rows = [row(1), row(2), row(1)]
    rows[1] = PromptRow(
        **{**{name: getattr(rows[1], name) for name in PromptRow.__slots__}, "images": (b"x",)}
    )
    texts = [["a", "bb", "cccc"], ["a", "bb"], ["dd", "e"]]
    pairs = ranked_pairs(rows, texts, by_length, min_margin=2.0, **options)
    assert [(p.chosen, p.rejected) for p in pairs] == [("cccc", "a"), ("cccc", "bb")]
    unknown = ranked_pairs(rows[:1], texts[:1], lambda _row, t: [1.0, float("nan"), 2.0], **options)
    assert [(p.chosen, p.rejected) for p in unknown] == [("cccc", "a")]


def test_balancing_keeps_the_widest_gaps_and_as_many_of_both_sides():
    rows = [
        PromptRow(sample_id=str(n), task="caption", prompt=image_prompt("?"), images=(b"%d" % n,), image_id=n)
        for n in range(7)
    ]
    texts = [["one", "one two"]] * 5 + [["three four", "three"], ["six", "ten"]]
    gaps = [5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 9.0]

    def rate(row, candidates):
        best = "three" if row.image_id == 5 else candidates[-1]
        return [gaps[row.image_id] * (text == best) for text in candidates]

    options = {"pairs_per_prompt": 1, "flip_fraction": 0.0, "seed": 0}
    assert len(ranked_pairs(rows, texts, rate, **options)) == 7
    kept = ranked_pairs(rows, texts, rate, balance_lengths=True, provenance={"seed": 0}, **options)
    assert [pair.sample_id[0] for pair in kept] == ["0", "5", "6"]
    assert kept[0].meta == {"seed": 0, "better_score": 5.0, "worse_score": 0.0}


def test_pairs_of_a_checkpoint_ranked_by_a_reward(bases, pictures, saved_reward, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name, path in pictures.items():
        (data / f"{name}.png").write_bytes(path.read_bytes())
    rows = [{"prompt": "Describe the image.", "image": f"{name}.png", "licence": "ours"} for name in pictures]
    (data / "prompts.jsonl").write_text("".join(json.dumps(values) + "\n" for values in rows))
    command = ["pairs", str(bases["llava"]), "--prompts", str(data / "prompts.jsonl")]
    command += ["--rank-by", "learned", "--reward-model", str(saved_reward), "--max-new-tokens", "6"]
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    arguments = parser.parse_args([*command, "--out", str(tmp_path / "run")])
    directory = run_stage(parse_recipe(recipe_values(arguments)), run)
    written = [json.loads(line) for line in (directory.final / "train.jsonl").read_text().splitlines()]
    assert len(written) == 4
    assert all((directory.final / image).is_file() for line in written for image in line["images"])
    assert {line["licence"] for line in written} == {"ours"}
    assert all(line["better_score"] > line["worse_score"] for line in written)
    assert {line["ranked_by"] for line in written} == {"learned"}
