"""The benchmark of caption metrics runs without shared data and reports its ratios."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "caption_metrics.py"


@pytest.mark.java
@pytest.mark.slow
def test_the_reward_is_much_faster_than_the_original():
    pytest.importorskip("pycocoevalcap.cider.cider")
    if shutil.which("java") is None:
        pytest.skip("no Java on the PATH")
    command = [sys.executable, str(SCRIPT), "--only", "reward", "--json", "--invented"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=280)
    found = json.loads(done.stdout)
    # Bounds far below what is measured on a quiet machine: this one may be busy.
    assert found["reward_64"] > 20
    assert found["reward_256"] > 20
    assert found["reward_256_as_example"] > 30
    assert found["cider_only_256"] > 5
    assert found["reward_memory_growth_mb"] < 20
