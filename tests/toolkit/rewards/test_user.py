"""Rewards from a user's file or module, in TRL's signature."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.errors import DataError, EnvironmentLacking, RecipeError, RunFailed
from toolkit.rewards.base import RewardBatch
from toolkit.rewards.user import UserReward, load_function

SOURCE = """
def words(prompts, completions, completion_ids, references, difficulty, scale=1.0, **columns):
    assert prompts[0][0]["role"] == "user" and "sample_id" in columns and len(completion_ids) == len(prompts)
    texts = [completion[0]["content"] for completion in completions]
    return [None if not text else float("nan") if text == "fail" else scale * len(text.split()) for text in texts]
async def later(**columns):
    return []
def short(**columns):
    return [1.0]
number = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_reward.py"
    path.write_text(SOURCE)
    return path


def test_a_function_in_a_file(file: Path, batch_of: Callable[..., RewardBatch]) -> None:
    reward = UserReward(load_function(f"{file}:words"), name="words", options={"scale": 2.0})
    output = reward(batch_of(["a b c", "", "fail"]))
    assert output.scores[0] == 6.0
    assert output.applies.tolist() == [True, False, True]
    assert output.failed.tolist() == [False, False, True]


def test_a_function_in_a_module() -> None:
    assert load_function("math:floor")(2.5) == 2  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("nofile.py:f", "no file nofile.py"),
        ("no_such_module_at_all:f", "cannot import"),
        ("math:nothing", "has no function"),
        ("math", "expected 'package.module:function'"),
    ],
)
def test_what_cannot_be_loaded_is_named(location: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_function(location)


def test_no_function_and_async_are_refused(file: Path) -> None:
    with pytest.raises(RecipeError, match="has no function 'number'"):
        load_function(f"{file}:number")
    with pytest.raises(RecipeError, match="async"):
        load_function(f"{file}:later")


def test_a_misspelt_function_gets_a_suggestion(file: Path) -> None:
    with pytest.raises(RecipeError, match="has no function 'wrds'; did you mean 'words'"):
        load_function(f"{file}:wrds")


# ---- a file that cannot be executed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "error", "code", "message"),
    [
        ("x = 1\ndef f(:\n", RecipeError, 2, "rw.py:2: SyntaxError: "),
        ("def g():\n    return {}['a']\n\ng()\n", RecipeError, 2, "rw.py:2: KeyError: 'a'"),
        ("import sys\nsys.exit(0)\n", RecipeError, 2, "rw.py:2: SystemExit: 0"),
        ("import json\njson.loads('{')\n", RecipeError, 2, "rw.py:2: JSONDecodeError: "),
        ("from math import nothing\n", RecipeError, 2, "rw.py:1: ImportError: cannot import name 'nothing'"),
        ("eval('1 +')\n", RecipeError, 2, "rw.py:1: SyntaxError: "),
        ("\nimport no_such_library.part\n", EnvironmentLacking, 3, "rw.py:2: ModuleNotFoundError: No module named"),
        ("from toolkit.errors import DataError\nraise DataError('table.csv', 'is empty')\n", DataError, 2, "is empty"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("location", ["rw.py:f", "rewards_of_mine.rw:f"])
def test_a_file_that_cannot_be_executed(
    in_tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    location: str,
    source: str,
    error: type[Any],
    code: int,
    message: str,
) -> None:
    (in_tmp_path / "rewards_of_mine").mkdir()
    folder = in_tmp_path if location.startswith("rw.py") else in_tmp_path / "rewards_of_mine"
    (folder / "rw.py").write_text(source)
    monkeypatch.syspath_prepend(in_tmp_path)
    with pytest.raises(error) as caught:
        load_function(location)
    assert type(caught.value) is error
    assert caught.value.exit_code == code
    assert message in str(caught.value)
    assert (caught.value.__cause__ is None) == (error is DataError)


def test_a_missing_module_of_a_package_is_a_wrong_name(
    in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (in_tmp_path / "package_of_mine").mkdir()
    monkeypatch.syspath_prepend(in_tmp_path)
    with pytest.raises(RecipeError, match="cannot import 'package_of_mine.gone'"):
        load_function("package_of_mine.gone:f")


def test_a_file_may_hold_dataclasses(in_tmp_path: Path) -> None:
    (in_tmp_path / "rw.py").write_text(
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass Weights:\n    length: float = 2.0\n"
        "def f(completions, **columns):\n    return [Weights().length] * len(completions)\n"
    )
    assert load_function("rw.py:f")(completions=["a"]) == [2.0]


# ---- a function that is wrong ----------------------------------------------------------------------------------

MISTAKES = """import functools, json, types
from toolkit.errors import DataError
def inner(text):
    return {}[text]
def raises(completions, **columns):
    return [inner("nothere") for _ in completions]
def in_a_library(completions, **columns):
    return [json.loads("{") for _ in completions]
def silent(**columns):
    raise ValueError
def leaves(**columns):
    raise SystemExit(0)
def narrow(completions, references):
    return [0.0 for _ in completions]
def plain_text(**columns):
    raise DataError("table.csv", "is empty")
def hungry(**columns):
    raise MemoryError("all of it")
def traced(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper
wrapped = traced(raises)
part = functools.partial(raises, scale=1)
class Object:
    def __call__(self, completions, **columns):
        return [inner("nothere")]
called = Object()
"""


def failure_of(name: str, batch: RewardBatch, **options: Any) -> RunFailed:
    """What the function ``name`` of ``MISTAKES`` ends the run with."""
    Path("rw.py").write_text(MISTAKES)
    reward = UserReward(load_function(f"rw.py:{name}"), name=name, options=options)
    with pytest.raises(RunFailed) as caught:
        reward(batch)
    assert caught.value.exit_code == 1
    return caught.value


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "reward term 'raises' (rw.py:4): KeyError: 'nothere'"),
        ("in_a_library", "reward term 'in_a_library' (rw.py:8): JSONDecodeError: "),
        ("silent", "reward term 'silent' (rw.py:10): ValueError"),
        ("leaves", "reward term 'leaves' (rw.py:12): SystemExit: 0"),
        ("wrapped", "reward term 'wrapped' (rw.py:4): KeyError: 'nothere'"),
        ("part", "reward term 'part' (rw.py:4): KeyError: 'nothere'"),
        ("called", "reward term 'called' (rw.py:4): KeyError: 'nothere'"),
    ],
)
def test_an_exception_names_term_and_line(
    in_tmp_path: Path, batch_of: Callable[..., RewardBatch], name: str, message: str
) -> None:
    error = failure_of(name, batch_of(["a"]), scale=2.0)
    assert error.message.startswith(message)
    assert "\n" not in error.message
    assert (error.message == message) or name == "in_a_library"
    assert error.__cause__ is not None
    assert error.remedy is not None
    columns = "sample_id, image_id, task, images, references, answers, difficulty, scale"
    assert f"passed were prompts, completions, completion_ids, {columns};" in error.remedy


def test_a_wrong_signature_names_the_right_one(
    in_tmp_path: Path, batch_of: Callable[..., RewardBatch]
) -> None:
    error = failure_of("narrow", batch_of(["a"]))
    assert error.message == (
        "reward term 'narrow' (rw.py:13): narrow() got an unexpected keyword argument 'prompts'; expected the "
        "signature fn(prompts, completions, completion_ids, **columns) -> list[float | None]"
    )


def test_messages_for_people_and_memory_that_ran_out_are_left_as_they_are(
    in_tmp_path: Path, batch_of: Callable[..., RewardBatch]
) -> None:
    Path("rw.py").write_text(MISTAKES)
    with pytest.raises(DataError, match="is empty"):
        UserReward(load_function("rw.py:plain_text"), name="x")(batch_of(["a"]))
    with pytest.raises(MemoryError, match="all of it"):
        UserReward(load_function("rw.py:hungry"), name="x")(batch_of(["a"]))


def test_options_named_like_an_argument_are_refused() -> None:
    with pytest.raises(RecipeError, match="options: prompts is passed already"):
        UserReward(lambda **columns: [], name="x", options={"prompts": 1})


# ---- what a function returns -----------------------------------------------------------------------------------


def returning(values: object) -> UserReward:
    return UserReward(lambda **columns: values, name="mine")  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (0.5, "returned 0.5 (float)"),
        (None, "returned None"),
        ("ab", "returned 'ab' (str)"),
        ({"a": 1.0, "b": 2.0}, "returned {'a': 1.0, 'b': 2.0} (dict)"),
        ({1.0, 2.0}, "returned {1.0, 2.0} (set)"),
        ((value for value in (1.0, 2.0)), "(generator)"),
        (torch.tensor(1.0), "returned tensor(1.) (Tensor)"),
        (np.float64(1.0), "(float64)"),
        ([1.0], "returned 1 scores for 2 completions"),
        (torch.zeros(3), "returned 3 scores for 2 completions"),
        ([1.0, "0.5"], "returned '0.5' (str) as the score of completion 1"),
        ([[1.0, 2.0], 1.0], "returned [1.0, 2.0] (list) as the score of completion 0"),
        (torch.zeros(2, 2), "(Tensor) as the score of completion 0"),
        ([10**400, 1.0], "(int) as the score of completion 0"),
    ],
)
def test_what_is_no_list_of_numbers_is_refused(
    batch_of: Callable[..., RewardBatch], values: object, message: str
) -> None:
    with pytest.raises(RunFailed) as caught:
        returning(values)(batch_of(["a", "b"]))
    assert caught.value.message.startswith("reward term 'mine' (")
    assert Path(__file__).name in caught.value.message
    assert message in caught.value.message
    assert (
        caught.value.remedy == "return a list, array or tensor of 2 numbers or None, one for each completion"
    )


@pytest.mark.parametrize(
    "values",
    [
        [1, np.float32(0.0)],
        (True, False),
        np.asarray([1.0, 0.0]),
        torch.tensor([1.0, 0.0], dtype=torch.bfloat16),
        [torch.tensor(1.0), torch.tensor([0.0])],
    ],
)
def test_sequences_arrays_and_tensors_of_numbers_are_scores(
    batch_of: Callable[..., RewardBatch], values: object
) -> None:
    assert returning(values)(batch_of(["a", "b"])).scores.tolist() == [1.0, 0.0]
