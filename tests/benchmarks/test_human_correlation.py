"""Metrics order captions as the literature says they do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "human_correlation.py"


@pytest.mark.slow
def test_published_correlations_are_met(shared_data: Path):
    """Half of the pictures; the published ones are of all."""
    command = [sys.executable, str(SCRIPT), "--data", str(shared_data), "--json"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=200).stdout)
    expert, crowd = found["flickr8k_expert"]["tau"], found["flickr8k_crowdflower"]["tau"]
    assert found["flickr8k_expert"]["rows"] == 3 * found["flickr8k_expert"]["pairs"]
    assert expert["cider"] == pytest.approx(43.9, abs=1.5)
    assert expert["bleu_4"] == pytest.approx(30.8, abs=1.5)
    assert crowd["cider"] == pytest.approx(24.6, abs=1.5)
    assert crowd["rouge_l"] == pytest.approx(19.9, abs=1.5)
