"""How long our RL loop takes to a CIDEr fixed beforehand, against the better of TRL's RLOO and GRPO trainers.

    python benchmarks/rl_race.py --from out/seeds/seed-0 [--sft-steps 50] [--trials 4] [--seeds 0 1 2] [--json]

All start from one SFT adapter of ``--sft-steps`` steps, trained first: from the quickstart's own (0), which imitation
has brought nearly as far as CIDEr goes, half of what is left to gain lies within the noise of an evaluation, and luck
decides. Then each side is tuned: ``--trials`` pairs of learning rate and KL weight from one grid, a run for each of
``--tuning-seeds``, which the race does not use. The target is SFT's CIDEr on validation pictures plus half of the best
gain that any of these runs reached. Each side takes the pair that got there first, and races: training seconds,
evaluations excluded, and completions until the target, for every seed. ``speedup`` is the better TRL trainer's median
seconds over ours with pycocoevalcap as its reward (references tokenized and counted beforehand),
``speedup_as_example`` with it called as its own example does, ``speedup_same_reward`` with our reward function; null
where a median run of either side did not get there. ``…_cpu`` are the same in processor seconds, which other work on
the machine leaves alone, and ``speedup_per_completion…`` that of a completion alone, whatever it taught. Both sides are
evaluated after every ``--eval-every`` completions. One thread, full size: about an hour.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout that is not installed serves too
from rl_methods import started
from rl_race_sides import SIDES, Point, Setting, Sizes, race

from toolkit.cli.guard import guarded, libraries_on_stderr
from toolkit.errors import UsageError
from toolkit.runs.logging import setup_logging
from toolkit.runs.offline import quiet_environment

GRID = (Setting(1e-3, 0.03), Setting(2e-3, 0.03), Setting(5e-4, 0.03), Setting(1e-3, 0.005))
TUNED = ("ours", "rloo", "grpo")
Points = list[Point]
NEVER = Point(math.inf, math.inf, 0, -math.inf)


def main() -> int:
    """Tune, race, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="chain", type=Path, required=True, help="a finished quickstart")
    parser.add_argument("--sft-steps", type=int, default=50, help="of the start; 0: the quickstart's SFT")
    parser.add_argument("--recipe", default="scenes/grpo", help="of our side")
    parser.add_argument("--trials", type=int, default=len(GRID), choices=range(1, len(GRID) + 1))
    parser.add_argument("--tuning-seeds", type=int, nargs="+", default=[1000, 1001])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--limit", type=int, default=2560, help="completions of a run at most")
    parser.add_argument("--ours", type=int, default=128, help="completions of an iteration of our side")
    parser.add_argument(
        "--theirs", type=int, default=64, help="completions of an iteration, and step, of TRL's"
    )
    parser.add_argument("--eval-every", type=int, default=128, help="completions between evaluations")
    parser.add_argument("--val", type=int, default=400, help="validation pictures")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    quiet_environment()
    setup_logging()

    def work() -> int:
        if not (arguments.chain / "sft" / "final").is_dir():
            raise UsageError(f"--from {arguments.chain} is no finished quickstart: sft/final is not there")
        with libraries_on_stderr(), tempfile.TemporaryDirectory() as folder:
            start = started(arguments.chain, Path(folder), arguments.sft_steps or None)
            sizes = Sizes(
                start or arguments.chain / "sft" / "final",
                arguments.recipe,
                limit=arguments.limit,
                ours=arguments.ours,
                theirs=arguments.theirs,
                eval_every=arguments.eval_every,
                val=arguments.val,
            )
            seeds = arguments.tuning_seeds, arguments.seeds
            found = measured(arguments.chain, sizes, GRID[: arguments.trials], *seeds)
        sys.stdout.write((json.dumps(found) if arguments.json else table(found)) + "\n")
        return 0

    return guarded(work)


def measured(
    chain: Path, sizes: Sizes, grid: Sequence[Setting], tuning_seeds: list[int], seeds: list[int]
) -> dict[str, Any]:
    """Tune every side, fix the target, race."""
    curves: dict[str, list[list[Points]]] = {
        side: [[race(side, chain, setting, sizes, seed=seed) for seed in tuning_seeds] for setting in grid]
        for side in TUNED
    }
    sft = curves["ours"][0][0][0].cider
    best = max(point.cider for own in curves.values() for runs in own for run in runs for point in run)
    target = sft + (best - sft) / 2
    tuned = {side: grid[first(own, target)] for side, own in curves.items()}
    runs: dict[str, dict[int, Point]] = {}
    for side in SIDES:
        setting = tuned[side.partition("-")[0]]
        runs[side] = {
            seed: reached(race(side, chain, setting, sizes, seed=seed, target=target), target)
            for seed in seeds
        }
    same, official, example = (
        tuple(f"{name}{reward}" for name in ("rloo", "grpo")) for reward in ("", "-official", "-example")
    )
    return {
        "sft_cider": sft,
        "best_cider": best,
        "target_cider": target,
        "tuned": {side: [setting.learning_rate, setting.kl] for side, setting in tuned.items()},
        "tuning_best_cider": {
            side: [[max(point.cider for point in run) for run in runs] for runs in own]
            for side, own in curves.items()
        },
        "tuning_cpu_seconds": {
            side: [[finite(reached(run, target).cpu_seconds) for run in runs] for runs in own]
            for side, own in curves.items()
        },
        "runs": {
            side: {seed: None if run is NEVER else run._asdict() for seed, run in own.items()}
            for side, own in runs.items()
        },
        "speedup": ratio(runs, official, "seconds"),
        "speedup_as_example": ratio(runs, example, "seconds"),
        "speedup_same_reward": ratio(runs, same, "seconds"),
        "speedup_cpu": ratio(runs, official, "cpu_seconds"),
        "speedup_as_example_cpu": ratio(runs, example, "cpu_seconds"),
        "speedup_same_reward_cpu": ratio(runs, same, "cpu_seconds"),
        "fewer_completions": ratio(runs, same, "completions"),
        "speedup_per_completion": per_completion(runs, official),
        "speedup_per_completion_as_example": per_completion(runs, example),
        "speedup_per_completion_same_reward": per_completion(runs, same),
    }


def reached(points: Points, target: float) -> Point:
    """The first evaluation that reached ``target``; ``NEVER`` where none did."""
    return next((point for point in points if point.cider >= target), NEVER)


def first(curves: list[list[Points]], target: float) -> int:
    """The setting whose runs, one a seed, reached ``target`` most often, and of those in the least time on average.

    Where none did, the one that came nearest.
    """

    def rank(runs: list[Points]) -> tuple[int, float, float]:
        there = [found for run in runs if (found := reached(run, target)) is not NEVER]
        seconds = statistics.mean(point.cpu_seconds for point in there) if there else math.inf
        return -len(there), seconds, -max(point.cider for run in runs for point in run)

    ranks = [rank(runs) for runs in curves]
    return ranks.index(min(ranks))


def finite(value: float) -> float | None:
    """``value``, or None for JSON where it is infinite."""
    return value if math.isfinite(value) else None


def ratio(runs: dict[str, dict[int, Point]], theirs: tuple[str, ...], what: str) -> float | None:
    """The better of ``theirs`` over ours, medians over the seeds; None where one of the two is not finite."""

    def median(side: str) -> float:
        own = runs[side].values()
        return statistics.median(math.inf if run is NEVER else getattr(run, what) for run in own)

    other, own = min(map(median, theirs)), median("ours")
    return other / own if math.isfinite(other) and math.isfinite(own) and own > 0 else None


def per_completion(runs: dict[str, dict[int, Point]], theirs: tuple[str, ...]) -> float | None:
    """Seconds a completion of the faster of ``theirs`` over ours, medians over the runs that reached the target."""

    def median(side: str) -> float:
        own = [run for run in runs[side].values() if run is not NEVER and run.completions]
        return statistics.median([run.seconds / run.completions for run in own]) if own else math.inf

    other, own = min(map(median, theirs)), median("ours")
    return other / own if math.isfinite(other) and math.isfinite(own) else None


def table(found: dict[str, Any]) -> str:
    """Markdown: every run, then the figures."""
    seeds = list(found["runs"]["ours"])
    heads = ["side", *(f"seed {seed}: s, processor s, completions" for seed in seeds)]
    lines = [heads, ["---"] * len(heads)]
    for side, own in found["runs"].items():
        cells = [
            "not reached"
            if run is None
            else f"{run['seconds']:.1f}, {run['cpu_seconds']:.1f}, {run['completions']}"
            for run in own.values()
        ]
        lines.append([side, *cells])
    figures = [f"{name}: {value}" for name, value in found.items() if name != "runs"]
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), "", *figures])


if __name__ == "__main__":
    raise SystemExit(main())
