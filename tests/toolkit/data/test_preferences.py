"""Pairs, ties, ratings and lists: what rows become, and every fault with its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.config.schema import RowsSource
from toolkit.data.preferences import agreement_of, read_preference_rows, read_ranked_rows
from toolkit.data.sources import load_preference_rows
from toolkit.errors import DataError

Jsonl = Callable[[Path, list[Any]], Path]
_PAIR = {"prompt": "Describe.", "chosen": "a cat", "rejected": "a dog"}
_LIST = {
    "prompt": "Describe.",
    "completions": ["bad", "best", "fine", "as fine"],
    "ratings": [1, 5, 3, [2, 4]],
}


def test_a_list_is_ordered_by_its_mean_ratings_and_becomes_all_of_its_pairs(
    tmp_path: Path, jsonl: Jsonl
) -> None:
    path = jsonl(tmp_path / "a.jsonl", [_LIST | {"weight": 2, "licence": "CC BY 4.0"}])
    [(_, row)] = read_ranked_rows(path, [])
    assert row.completions == ("best", "fine", "as fine", "bad")
    assert row.ranks == (0, 1, 1, 2)
    assert row.agreements[0] == (0.5, 1.0, 1.0, 1.0)
    assert row.agreements[1][2] == 0.5
    pairs = [pair for _, pair in read_preference_rows(path, [])]
    named = {(pair.chosen, pair.rejected): pair for pair in pairs}
    assert len(named) == 6
    assert [pair for pair in named if named[pair].tie] == [("fine", "as fine")]
    assert named["best", "bad"].sample_id == "a:1/0-3"
    assert {(pair.weight, pair.meta["licence"]) for pair in pairs} == {(2.0, "CC BY 4.0")}


def test_several_raters_of_a_pair_give_the_share_that_agrees(tmp_path: Path, jsonl: Jsonl) -> None:
    rows = [
        _PAIR | {"chosen_ratings": [4, 3], "rejected_ratings": [3, 1]},
        _PAIR | {"agreement": 0.7},
        _PAIR | {"tie": True},
        _PAIR | {"both_bad": True},
        _PAIR,
    ]
    pairs = [pair for _, pair in read_preference_rows(jsonl(tmp_path / "a.jsonl", rows), [])]
    assert [pair.agreement for pair in pairs] == [0.875, 0.7, None, None, None]
    assert [pair.tie for pair in pairs] == [False, False, True, True, False]
    assert pairs[3].meta == {"both_bad": True}
    assert pairs[0].sample_id == "a:1"


def test_agreement_counts_every_pair_of_raters() -> None:
    assert agreement_of([4, 3], [3, 1]) == (1 + 1 + 0.5 + 1) / 4
    assert agreement_of([2], [2]) == 0.5


def test_conversations_of_several_turns_systems_and_pictures(tmp_path: Path, jsonl: Jsonl) -> None:
    prompt = [
        {"role": "system", "content": "Answer briefly."},
        {
            "role": "user",
            "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Same?"}],
        },
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "Why?"},
    ]
    rows = [_PAIR | {"prompt": prompt, "images": ["a.png", "b.png"]}, _PAIR]
    (_, long), (_, text) = read_preference_rows(jsonl(tmp_path / "a.jsonl", rows), [])
    assert [message["role"] for message in long.prompt] == ["system", "user", "assistant", "user"]
    assert len(long.images) == 2
    assert text.images == ()


def test_ties_are_kept_for_those_who_ask(tmp_path: Path, jsonl: Jsonl) -> None:
    jsonl(tmp_path / "a.jsonl", [_PAIR | {"tie": True}, _PAIR])
    jsonl(tmp_path / "ties.jsonl", [_PAIR | {"tie": True}])
    source = [RowsSource(kind="rows", file="a.jsonl")]
    assert [row.tie for row in load_preference_rows(source, tmp_path)] == [False]
    assert [row.tie for row in load_preference_rows(source, tmp_path, ties=True)] == [True, False]
    with pytest.raises(DataError, match="all 1 pairs are ties"):
        load_preference_rows([RowsSource(kind="rows", file="ties.jsonl")], tmp_path)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (_PAIR | {"weight": 0}, "'weight' is '0', expected a finite number above 0, or no weight"),
        (_PAIR | {"tie": "yes"}, "'tie' is 'yes', expected true or false"),
        (
            _PAIR | {"agreement": 1.5},
            "'agreement' is '1.5', expected a finite number of at least 0 and of at",
        ),
        (_PAIR | {"chosen_ratings": [3]}, "expected 'chosen_ratings' together with 'rejected_ratings'"),
        (
            _PAIR | {"chosen_ratings": [float("nan")], "rejected_ratings": [1]},
            "'chosen_ratings' holds '[nan]', expected finite numbers",
        ),
        (_LIST | {"ratings": [1, 2]}, "4 completions and 2 ratings; expected as many"),
        (_LIST | {"ratings": None}, "no 'ratings'"),
        (_LIST | {"completions": ["x", " x", "y", "z"]}, "'completions' holds the same text twice"),
        (_LIST | {"chosen": "x"}, "'completions' beside 'chosen'; expected a list or a pair"),
        (_LIST | {"completions": ["x"], "ratings": [1]}, "'completions' and 'ratings' are lists of at least"),
        (_LIST | {"ratings": [1, 2, 3, []]}, "'ratings' holds '[]', expected finite numbers"),
        (
            _PAIR
            | {"prompt": [{"role": "user", "content": [{"type": "image"}]}], "images": ["a.png", "b.png"]},
            "1 image placeholders in the prompt for 2 images; expected as many",
        ),
    ],
)
def test_faulty_rows(tmp_path: Path, jsonl: Jsonl, row: dict[str, Any], problem: str) -> None:
    problems: list[str] = []
    path = jsonl(tmp_path / "a.jsonl", [_PAIR, row])
    assert len(read_preference_rows(path, problems)) == 1
    [found] = problems
    assert found.startswith(f"{path}:2: {problem}")
