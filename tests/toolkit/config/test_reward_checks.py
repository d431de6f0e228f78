"""Reward terms of a recipe: what each needs is asked for before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolkit.config.findings import Findings
from toolkit.config.loading import parse_recipe
from toolkit.config.reward_checks import check_rewards
from toolkit.config.schema import RewardTerm


def problems_of(term: dict[str, Any], produced: tuple[Path, ...] = ()) -> list[str]:
    recipe = parse_recipe(
        {
            "stage": "rl",
            "model": {"id": "sft/final"},
            "data": {"root": "data", "train": [{"kind": "rows", "file": "rows.jsonl"}]},
            "rewards": [term],
            "run": {"output_dir": "rl"},
        }
    )
    findings = Findings(recipe, produced=produced)
    check_rewards("rewards", [RewardTerm.model_validate(term)], findings)
    return findings.problems


@pytest.mark.parametrize(
    ("term", "lacking"),
    [
        ("http", ["url"]),
        ("clipscore", ["model"]),
        ("chair", ["objects", "synonyms"]),
        ("object_recall", ["objects", "synonyms"]),
    ],
)
def test_a_missing_option_is_named(in_tmp_path: Path, term: str, lacking: list[str]) -> None:
    problems = problems_of({"term": term})
    assert [problem.partition(":")[0] for problem in problems] == [
        f"rewards.0.options.{key}" for key in lacking
    ]
    assert all(f"{term} needs" in problem for problem in problems)


def test_files_must_be_there_or_come_from_an_earlier_stage(in_tmp_path: Path) -> None:
    (in_tmp_path / "synonyms.txt").write_text("dog")
    term = {"term": "chair", "options": {"objects": "made/objects.json", "synonyms": "synonyms.txt"}}
    assert problems_of(term) == [
        "rewards.0.options.objects: expected a file, found nothing at 'made/objects.json'"
    ]
    assert problems_of(term, (in_tmp_path / "made",)) == []
    frequencies = {"term": "cider", "options": {"document_frequencies": "gone.safetensors"}}
    assert "found nothing at 'gone.safetensors'" in problems_of(frequencies)[0]


def test_a_complete_term_passes(in_tmp_path: Path) -> None:
    assert problems_of({"term": "http", "options": {"url": "http://127.0.0.1:8000/score"}}) == []
