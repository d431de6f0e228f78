"""Kill -9 in the middle of a stage, go on with the same command: the summary equals the uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.slow]


def killed_when(arguments: list[str], ready, *, timeout_s: float = 600) -> int:
    """Start the command line, kill -9 it and its children once ``ready()`` says so; return its exit code."""
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit", *arguments],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    limit = time.monotonic() + timeout_s
    while not ready():
        if process.poll() is not None or time.monotonic() > limit:
            os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
            raise AssertionError(f"the moment to kill never came: {process.stderr.read()[-3000:]}")
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.stderr.close()
    return process.wait()


def lines(path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_summary_after_kills_equals_the_uninterrupted_one(smoke, tmp_path, cli):
    out = tmp_path / "out"
    quickstart = ["quickstart", "--smoke", "--out", str(out)]
    moments = {
        "sft": lambda: lines(out / "sft" / "metrics.jsonl") >= 1,
        "reward": lambda: lines(out / "reward" / "metrics.jsonl") >= 1,
        "ppo": lambda: lines(out / "ppo" / "metrics.jsonl") >= 2,
        "eval": lambda: lines(out / "eval" / "systems" / "sft" / "predictions.jsonl") >= 100,
    }
    for stage, ready in moments.items():
        assert killed_when(quickstart, ready) == -signal.SIGKILL
        assert not (out / stage / "finished.json").exists(), f"{stage} had ended before it was killed"
    done = cli(*quickstart)
    assert done.returncode == 0, done.stderr[-3000:]
    expected, found = (json.loads((folder / "summary.json").read_text()) for folder in (smoke, out))
    for summary in (expected, found):
        summary.pop("seconds")
    assert json.dumps(found).replace(str(out), "OUT") == json.dumps(expected).replace(str(smoke), "OUT")
