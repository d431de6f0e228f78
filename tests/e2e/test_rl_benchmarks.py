"""The benchmarks that train run on the smoke chain: what they print is there, and what is done is not done again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = [pytest.mark.slow]


def result(script: str, *arguments: str) -> dict[str, Any]:
    """The one JSON object on stdout."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments, "--json"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_methods_are_trained_evaluated_and_kept(smoke: Path, tmp_path: Path) -> None:
    command = [
        "--from",
        str(smoke),
        "--methods",
        "ppo-composite",
        "--iterations",
        "1",
        "--out",
        str(tmp_path),
    ]
    found = result("rl_methods.py", *command)
    systems = found["seeds"]["0"]
    assert list(systems) == ["sft", "dpo", "ppo-composite"]
    for system in systems.values():
        assert system["vision_gap"]["cider"]["low"] > 0, "a policy that does not look"
        assert system["scores"]["vocabulary"] > 1
    assert systems["sft"]["minus_sft"]["gold"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    chain = json.loads((smoke / "eval" / "summary.json").read_text())
    assert systems["sft"]["scores"]["cider"] == pytest.approx(chain["rows"]["sft"]["cider"])
    minus, own = systems["dpo"]["minus_sft"]["vqa_accuracy"], chain["differences"]["dpo_minus_sft"]
    assert minus == pytest.approx(own["vqa_accuracy"])
    assert found["aims"]["0"].keys() == {"cider_gain"}
    written = (tmp_path / "seed-0" / "ppo-composite" / "finished.json").stat().st_mtime_ns
    assert result("rl_methods.py", *command) == found
    assert (tmp_path / "seed-0" / "ppo-composite" / "finished.json").stat().st_mtime_ns == written


def test_methods_from_a_shorter_sft(smoke: Path, tmp_path: Path) -> None:
    command = ["--methods", "grpo-composite", "--iterations", "1", "--sft-steps", "3", "--out", str(tmp_path)]
    systems = result("rl_methods.py", "--from", str(smoke), *command)["seeds"]["0"]
    assert list(systems) == ["sft", "grpo-composite"]
    written = (tmp_path / "seed-0" / "sft" / "recipe.resolved.yaml").read_text()
    assert "max_steps: 3" in written
    chain = json.loads((smoke / "eval" / "summary.json").read_text())
    assert systems["sft"]["scores"]["cider"] != chain["rows"]["sft"]["cider"]
    assert systems["grpo-composite"]["rollouts"] > 0


def test_the_race_runs_and_counts(smoke: Path) -> None:
    pytest.importorskip("pycocoevalcap")
    sizes = ["--limit", "32", "--ours", "16", "--theirs", "8", "--eval-every", "16", "--val", "8"]
    sizes += ["--sft-steps", "2", "--tuning-seeds", "1000"]
    found = result("rl_race.py", "--from", str(smoke), "--trials", "1", "--seeds", "0", *sizes)
    assert found["sft_cider"] <= found["target_cider"] <= found["best_cider"]
    theirs = {f"{name}{reward}" for name in ("rloo", "grpo") for reward in ("", "-official", "-example")}
    assert found["runs"].keys() == {"ours"} | theirs
    reached = [run for own in found["runs"].values() for run in own.values() if run is not None]
    assert all(0 <= run["completions"] <= 32 for run in reached)
    assert all(run["cider"] >= found["target_cider"] for run in reached)
    assert {"speedup", "speedup_as_example", "speedup_same_reward"} <= found.keys()
