"""The PPO benchmarks print the ratios they promise, and what does not depend on the clock is exact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.slow


def result(script: str, *arguments: str) -> dict[str, Any]:
    """The one JSON object on stdout."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments, "--json"],
        env=environment, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_four_roles_cost_their_adapters_and_nothing_else() -> None:
    found = result("ppo_memory.py")
    assert found["excess_over_adapters"] == pytest.approx(1.0, abs=0.01)
    assert found["qwen_parameters"] == 8_292_166_656
    assert found["roles_over_sft"] <= 1.25
    assert found["four_models_over_sft"] > 3


def test_the_plain_loop_learns_the_same_and_the_tower_runs_once() -> None:
    found = result("ppo_overhead.py", "--pairs", "1")
    assert found["same_adapter"] < 1e-3
    assert min(found["overhead"], found["overhead_without_reuse"]) > 0
    assert set(found["tower"]) == {"llava", "idefics3", "qwen2_5_vl"}
    for row in found["tower"].values():
        assert (row["forwards"], row["pictures"]) == (1, row["distinct_pictures"])
        assert row["forwards_without_reuse"] > row["forwards"]
        assert row["bit_exact"] is True


def test_samples_that_share_a_prompt_are_drawn_and_teach_the_same() -> None:
    found = result("shared_prompts.py", "--pairs", "1")
    for part in ("sample", "learn"):
        assert set(found[part]) == {"llava", "idefics3", "qwen2_5_vl"}
    for family, lengths in found["sample"].items():
        for length, row in lengths.items():
            assert row["differing"] <= 0.02 * row["completions"]
            assert found["learn"][family][length]["gradient_difference"] < 1e-3


def test_a_run_that_is_killed_three_times_ends_like_the_one_that_was_not() -> None:
    found = result("ppo_kills.py", "--kills", "3", "--iterations", "10")
    assert found["kills"] == 3
    assert found["bit_identical"] is True
    assert found["same_metrics"] is True
