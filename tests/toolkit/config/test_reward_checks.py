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


# ---- options ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "problem"),
    [
        (
            {"term": "repetition", "options": {"ngrm": 2}},
            "rewards.0.options.ngrm: unknown option of repetition, expected one of ngram; did you mean 'ngram'?",
        ),
        ({"term": "bad_ending", "options": {"x": 2}}, "options.x: unknown option of bad_ending, expected none"),
        ({"term": "cider", "options": {"end_tokn": True}}, "did you mean 'end_token'?"),
        ({"term": "learned", "model": "m", "options": {"scale": 2}}, "unknown option of learned, expected none"),
        ({"term": "math:floor", "options": {"prompts": 2}}, "rewards.0.options.prompts: every function gets this"),
    ],
)  # fmt: skip
def test_unknown_options_are_named(in_tmp_path: Path, term: dict[str, Any], problem: str) -> None:
    (found,) = problems_of(term)
    assert problem in found


@pytest.mark.parametrize(
    "url", ["localhost:8000/score", "ftp://host/score", "http://", "http:///score", "http://[::1", 8000, None]
)
def test_an_address_needs_scheme_and_host(in_tmp_path: Path, url: object) -> None:
    (found,) = problems_of({"term": "http", "options": {"url": url}})
    assert found.startswith("rewards.0.options.url: expected http://host:port/path or https://…, found ")


def test_the_variable_of_a_token_must_be_set(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"url": "https://host/score", "token_env": "TOKEN_OF_THE_SERVICE"}
    monkeypatch.delenv("TOKEN_OF_THE_SERVICE", raising=False)
    (found,) = problems_of({"term": "http", "options": options})
    assert found.startswith(
        "rewards.0.options.token_env: expected the name of an environment variable that is set"
    )
    monkeypatch.setenv("TOKEN_OF_THE_SERVICE", "secret")
    assert problems_of({"term": "http", "options": options}) == []


# ---- functions of users ----------------------------------------------------------------------------------------

SOURCE = r"""
import math
from math import floor as down
raise RuntimeError("a check executes nothing")
pattern = "\d"
def words(completions, **columns):
    local = 1
    return []
if math.pi > 3:
    async def other(**columns): ...
called, (nested, *rest) = words, (words, words)
with open("x") as opened:
    typed: object = words
class Scorer:
    def method(self): ...
"""


@pytest.mark.parametrize(
    "name", ["words", "math", "down", "other", "called", "nested", "rest", "opened", "typed", "Scorer"]
)
def test_names_that_a_file_binds(in_tmp_path: Path, name: str) -> None:
    Path("rw.py").write_text(SOURCE)
    assert problems_of({"term": f"rw.py:{name}"}) == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("wrds", "; did you mean 'words'?"),
        ("scorer", "; did you mean 'Scorer'?"),
        ("xyz", "; its functions are words"),
        ("local", None),
        ("method", None),
    ],
)
def test_names_that_a_file_does_not_bind(in_tmp_path: Path, name: str, hint: str | None) -> None:
    Path("rw.py").write_text(SOURCE)
    (found,) = problems_of({"term": f"rw.py:{name}"})
    assert found.startswith(f"rewards.0.term: rw.py has no function '{name}'")
    assert hint is None or found.endswith(hint)


@pytest.mark.parametrize(
    "source",
    [
        "from elsewhere import *\n",
        "globals()['f'] = print\n",
        "def __getattr__(name): ...\n",
        "def g():\n    global f\n    f = print\ng()\n",
    ],
)
def test_names_that_only_execution_binds_are_not_missed(in_tmp_path: Path, source: str) -> None:
    Path("rw.py").write_text(source)
    assert problems_of({"term": "rw.py:f"}) == []


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (b"x = 1\ndef f(:\n", "rw.py:2: SyntaxError: "),
        (b"def f():\n  x\n y\n", "rw.py:3: IndentationError: "),
        (b"\nreturn 1\n", "rw.py:2: SyntaxError: 'return' outside function"),
        (b"x = '\xff'\n", "SyntaxError: "),
        (b"x = 1\0\n", "null bytes"),
    ],
)
def test_a_file_that_is_not_python_is_named_with_its_line(
    in_tmp_path: Path, source: bytes, problem: str
) -> None:
    Path("rw.py").write_bytes(source)
    (found,) = problems_of({"term": "rw.py:f"})
    assert found.startswith("rewards.0.term: rw.py")
    assert problem in found
