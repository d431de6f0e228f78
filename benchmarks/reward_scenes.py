"""What a quickstart's reward model is worth on scenes that nothing of it has seen, against the hidden criterion.

    python benchmarks/reward_scenes.py --from out/quickstart [DIR …] [--pairs 2000] [--seed 9001] [--json]

Draws scenes of the test split from a seed of its own, of the colour and shape pairs that training shows (``seen``) and
of those that it never shows (``unseen``), and labels pairs by gold: bundled ones (order of mention, relation,
attribute, answer) and the SFT model's own samples (captions by what tells them apart, answers). Prints for each
source the accuracy with its 95 % interval over pictures, that of the twin trained on grey pictures (text-only),
and that with the pictures greyed (blanked) or swapped; the calibration error in 10 bins of equal mass, pairs in
random orientation, temperature fitted on fresh scenes of the validation split; and the seconds training took.
With ``--json`` one object, folder → results.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))

from reward_pairs import bundled_pairs, load_policy, on_policy_pairs, scenes_of

from reward_models.evaluation import score_rows
from reward_models.measures import calibration_error, fitted_temperature, reliability
from reward_models.scorer import LearnedReward
from toolkit.evaluation.intervals import bootstrap, interval, pooled_mean

if TYPE_CHECKING:
    from toolkit.records import PreferenceRow

_STAGES = ("reward", "reward-text-only")
_VAL_PAIRS_SHARE = 6


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every folder, print a table each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--from", dest="chains", type=Path, nargs="+", required=True, metavar="DIR", help="quickstarts"
    )
    parser.add_argument("--combinations", nargs="+", choices=("seen", "unseen"), default=["seen", "unseen"])
    parser.add_argument("--pairs", type=int, default=2000, help="of each bundled source, and on-policy")
    parser.add_argument("--seed", type=int, default=9001, help="of the scenes and of the samples")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    arguments = parser.parse_args(argv)
    found = {str(chain): measured(chain, arguments) for chain in arguments.chains}
    tables = "\n".join(table(chain, result) for chain, result in found.items())
    sys.stdout.write(json.dumps(found) + "\n" if arguments.json else tables)
    return 0


def measured(chain: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Training seconds, and the measures of each kind of scenes."""
    began_s = time.process_time()
    reward = LearnedReward.load(chain / "reward" / "final")
    text_only = LearnedReward.load(chain / "reward-text-only" / "final")
    val = held_out(chain, "val", "seen", max(2, arguments.pairs // _VAL_PAIRS_SHARE), arguments.seed)
    temperature = fitted_temperature(*score_rows(reward, val, label="validation pairs"))
    kinds = {
        kind: measures(
            reward, text_only, held_out(chain, "test", kind, arguments.pairs, arguments.seed), temperature
        )
        for kind in arguments.combinations
    }
    seconds = {
        stage: json.loads((chain / stage / "finished.json").read_text(encoding="utf-8"))["seconds"]
        for stage in _STAGES
    }
    return {"training_seconds": seconds, "measuring_cpu_seconds": time.process_time() - began_s, **kinds}


def held_out(chain: Path, split: Any, kind: Any, number: int, seed: int) -> list[PreferenceRow]:
    """Bundled and on-policy pairs about fresh scenes."""
    scenes = scenes_of(split, seed, kind, number)
    return [
        *bundled_pairs(scenes, seed, number),
        *on_policy_pairs(load_policy(chain), scenes, number, seed=seed),
    ]


def measures(
    reward: LearnedReward, text_only: LearnedReward, rows: Sequence[PreferenceRow], temperature: float
) -> dict[str, Any]:
    """Accuracies by source, image-swap gap and calibration of a reward model on ``rows``."""
    chosen, rejected = score_rows(reward, rows, label="pairs")
    swapped_chosen, swapped_rejected = score_rows(
        reward, rows, images=of_others(rows), label="swapped pictures"
    )
    blanked = np.subtract(*score_rows(reward.blanked(), rows, label="grey pictures"))
    blind = np.subtract(*score_rows(text_only, rows, label="text-only model"))
    margins = {
        "accuracy": chosen - rejected,
        "text_only": blind,
        "blanked": blanked,
        "swapped": swapped_chosen - swapped_rejected,
    }
    sources = np.array([row.source for row in rows])
    groups = {"all": np.ones(len(rows), dtype=bool), "bundled": ~np.char.startswith(sources, "on_policy")}
    groups |= {"on_policy": ~groups["bundled"]} | {str(name): sources == name for name in np.unique(sources)}
    points = reliability(chosen, rejected, temperature=temperature)
    by_source = {}
    for name, mask in groups.items():
        if mask.any():
            part = reliability(chosen[mask], rejected[mask], temperature=temperature)
            by_source[name] = {**_accuracies(margins, rows, mask), "ece": calibration_error(part)}
    return {
        "by_source": by_source,
        "swap_gap": float(np.mean(chosen - swapped_chosen)),
        "temperature": temperature,
        "ece": calibration_error(points),
        "ece_at_temperature_1": calibration_error(reliability(chosen, rejected)),
        "reliability": points,
    }


def of_others(rows: Sequence[PreferenceRow]) -> list[tuple[Any, ...]]:
    """For each row the picture of a row half the list further on, or of the next one that has another picture."""
    found = []
    for index, row in enumerate(rows):
        others = (rows[(index + len(rows) // 2 + step) % len(rows)].images for step in range(len(rows)))
        found.append(next(images for images in others if images != row.images))
    return found


def _accuracies(
    margins: dict[str, NDArray[np.float64]], rows: Sequence[PreferenceRow], mask: NDArray[np.bool_]
) -> dict[str, Any]:
    """``n``, the share ranked right by each judge, and the 95 % interval over pictures of ``accuracy``."""
    right = {name: (values > 0) + 0.5 * (values == 0) for name, values in margins.items()}
    places: dict[Any, list[int]] = {}
    for index in np.flatnonzero(mask):
        places.setdefault(rows[index].images, []).append(int(index))
    pooled = pooled_mean("accuracy", [right["accuracy"][part].tolist() for part in places.values()])
    limits = interval(bootstrap(pooled, units=len(places)), "accuracy")
    return {
        "n": int(mask.sum()),
        **{name: float(values[mask].mean()) for name, values in right.items()},
        "low": limits.low,
        "high": limits.high,
    }


def table(chain: str, found: dict[str, Any]) -> str:
    """Markdown: a table for each kind of scenes, and the figures that are no accuracies below it."""
    lines = [f"## {chain}", ""]
    for kind in (kind for kind in ("seen", "unseen") if kind in found):
        here = found[kind]
        lines += [
            f"| {kind} combinations | n | accuracy | 95 % | text-only | greyed | swapped | ECE |",
            "|---" * 8 + "|",
        ]
        lines += [
            f"| {name} | {row['n']} | {row['accuracy']:.3f} | {row['low']:.3f} – {row['high']:.3f} | "
            f"{row['text_only']:.3f} | {row['blanked']:.3f} | {row['swapped']:.3f} | {row['ece']:.3f} |"
            for name, row in here["by_source"].items()
        ]
        calibration = f"ECE {here['ece']:.3f} at temperature {here['temperature']:.2f}"
        gap = f"{here['ece_at_temperature_1']:.3f} at 1; image-swap gap {here['swap_gap']:.2f}"
        lines += ["", f"{calibration}, {gap}", ""]
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in found["training_seconds"].items())
    return "\n".join(
        [*lines, f"trained in: {seconds}; measured in {found['measuring_cpu_seconds']:.0f} CPU s", ""]
    )


if __name__ == "__main__":
    raise SystemExit(main())
