"""One smoke chain for all end-to-end tests: the real program on little data."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smoke(tmp_path_factory) -> Path:
    """The output directory of ``vlm-rlhf quickstart --smoke``."""
    out = tmp_path_factory.mktemp("smoke") / "out"
    done = run_cli("quickstart", "--smoke", "--out", str(out))
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def run_cli(
    *arguments: str, cwd: Path | None = None, timeout_s: int = 900
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "toolkit", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )


@pytest.fixture(scope="session")
def cli():
    """The function that runs the command line."""
    return run_cli
