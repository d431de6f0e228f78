"""``kill -9`` at random moments of a PPO run, a resume after each, and whether the end is the uninterrupted one's.

    python benchmarks/ppo_kills.py [--kills 20] [--iterations 40] [--seed 0] [--json]      (about 5 minutes on one core)

A tiny random LLaVA with an adapter critic, adaptive KL, running and frozen reward statistics and a checkpoint every
iteration runs once to its end. Then the same run is started, killed after a random time and resumed until it was killed
``--kills`` times, and finished. One moment in five lies in the start-up, the others anywhere in one of the next two
iterations, half-written checkpoints included (``half_written`` counts those that were seen). ``bit_identical``
compares every weight file of ``final/``, ``same_metrics`` every logged number but times.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout that is not installed serves too


def main() -> int:
    """Kill, resume, compare and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--child", nargs=3, metavar=("BASE", "OUT", "ITERATIONS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        base, out, iterations = arguments.child
        train(Path(base), Path(out), int(iterations))
        return 0
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name), arguments.kills, arguments.iterations, random.Random(arguments.seed))
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
        return 0
    for key, value in result.items():
        sys.stdout.write(f"{key:20}{value!s:>12}\n")
    return 0


def train(base: Path, out: Path, iterations: int) -> None:
    """The run, resumed where there is something to go on from; in a process of its own."""
    from ppo_setup import load_policy, make_recipe, make_rows

    from toolkit.rewards.building import build_reward
    from toolkit.rl.trainer import PpoTrainer
    from toolkit.runs.directory import RunDirectory

    out.mkdir(parents=True, exist_ok=True)
    term = f"{base.parent / 'reward.py'}:variety"
    recipe = make_recipe(
        base.parent,
        rollout={"prompts_per_iteration": 16, "max_new_tokens": 8},
        ppo={"iterations": iterations, "critic": "adapter", "critic_warmup_iterations": 2},
        kl={"controller": "adaptive"},
        guards={"calibration_samples": 16},
        run={"output_dir": str(out / "run"), "save_every_steps": 1, "log_every_steps": 1},
    )
    recipe = type(recipe).model_validate(
        {
            **recipe.model_dump(),
            "rewards": [
                {"term": term, "normalise": "frozen"},
                {"term": "length", "normalise": "running", "options": {"max_tokens": 3}},
            ],
        }
    )
    run = RunDirectory(out / "run")
    run.prepare(recipe, resume=True)
    reward = build_reward(recipe.rewards, references={"0": ["a red circle"]})
    rows = make_rows(40, size=48)
    PpoTrainer(load_policy(base, bits=4, rank=4), reward, rows, rows, recipe, run).train(resume=True)
    run.release()


def start(base: Path, out: Path, iterations: int) -> subprocess.Popen[bytes]:
    """The run in another process; what it says goes to ``<out>.log``."""
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    command = [sys.executable, __file__, "--child", str(base), str(out), str(iterations)]
    with Path(f"{out}.log").open("ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def measure(folder: Path, kills: int, iterations: int, moments: random.Random) -> dict[str, Any]:
    """Run both, compare."""
    from ppo_setup import save_base

    from toolkit.cli.guard import libraries_on_stderr

    with libraries_on_stderr():
        base = save_base(folder / "base")
    began = time.monotonic()
    process = start(base, folder / "whole", iterations)
    metrics = folder / "whole" / "run" / "metrics.jsonl"
    while not metrics.exists() and process.poll() is None:
        time.sleep(0.02)
    starting = time.monotonic() - began
    _finished(process, folder / "whole")
    an_iteration = (time.monotonic() - began - starting) / iterations
    killed, half_written, early = 0, 0, 0
    while True:
        process = start(base, folder / "broken", iterations)
        if killed == kills:
            _finished(process, folder / "broken")
            break
        _wait(process, folder / "broken", moments, starting, an_iteration)
        if process.poll() is not None:  # it came to its end before the moment
            _finished(process, folder / "broken")
            break
        process.kill()
        process.wait()
        killed += 1
        run = folder / "broken" / "run"
        half_written += any(run.glob(".checkpoint-*"))
        early += not any(run.glob("checkpoint-*"))
    return {
        "kills": killed,
        "before_the_first_checkpoint": early,
        "half_written": half_written,
        "bit_identical": _weights(folder / "whole") == _weights(folder / "broken"),
        "same_metrics": _numbers(folder / "whole") == _numbers(folder / "broken"),
    }


def _wait(
    process: subprocess.Popen[bytes], out: Path, moments: random.Random, starting: float, an_iteration: float
) -> None:
    """Until the moment to kill: one in five in the start-up, else some part of one of the next iterations."""
    metrics = out / "run" / "metrics.jsonl"
    if moments.random() < 0.2:
        end, lines = time.monotonic() + moments.uniform(0.0, 0.8 * starting), _lines(metrics)
        while time.monotonic() < end and _lines(metrics) == lines and process.poll() is None:
            time.sleep(0.01)  # a start may be faster than the first one was
        return
    wanted = _lines(metrics) + moments.randint(1, 2)
    while _lines(metrics) < wanted and process.poll() is None:
        time.sleep(0.01)
    time.sleep(moments.uniform(0.0, an_iteration))


def _lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def _finished(process: subprocess.Popen[bytes], out: Path) -> None:
    if process.wait() != 0:
        raise RuntimeError(
            f"the run ended with {process.returncode}: {Path(f'{out}.log').read_text()[-3000:]}"
        )


def _weights(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "run" / "final").glob("*.safetensors"))}


def _numbers(out: Path) -> list[dict[str, Any]]:
    lines = (out / "run" / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if not name.startswith("time/")}
        for line in lines
    ]


if __name__ == "__main__":
    raise SystemExit(main())
