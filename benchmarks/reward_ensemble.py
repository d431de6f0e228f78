r"""Does a pessimistic ensemble keep more of the hidden criterion than one reward model? Does it know what is strange?

    python -m recipes.reward recipes/configs/scenes/reward.yaml model.id=out/quickstart/base/final \
        data.root=out/quickstart data.train.0.file=data/train/pairs.jsonl data.val.0.file=data/val/pairs.jsonl \
        'ensemble={members: 3}' run.output_dir=out/ensemble
    python benchmarks/reward_ensemble.py --from out/quickstart --ensemble out/ensemble/final \
        [--photographs DIR] [--json]

First table: of n samples a picture of a quickstart's SFT model, on fresh scenes of the test split, each scorer takes
the one it likes best; gold says what the choice is worth, with 95 % intervals over pictures. The scorers are the
ensemble's mean − λ·std for every ``--std-penalty``, its mean, each member, and the quickstart's own reward model
(``single``), which was trained on all pairs. Every scorer chooses among the same samples.

Second table: how far the members disagree about the same pairs of texts before pictures of training's distribution
(the texts' own, and another scene's) and outside it (unseen colour and shape pairs, negatives, noise, photographs):
the standard deviation of their scores and of their differences chosen − rejected, and the share of pairs about whose
order they are not of one mind.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))

from reward_pairs import bundled_pairs, load_policy, prompts_about, scenes_of

from reward_models.ensemble import EnsembleReward
from reward_models.ensemble_stage import altered
from reward_models.on_policy import sample_completions
from reward_models.over_optimisation import best_of_n_curve
from reward_models.scorer import LearnedReward
from toolkit.config.schema import GenerationSpec
from toolkit.data.scenes.gold import gold
from toolkit.evaluation.intervals import bootstrap, interval, means

if TYPE_CHECKING:
    from toolkit.records import ImageSource, PreferenceRow

_MAX_NEW_TOKENS, _BATCH = 32, 256
_PICTURES = (".jpg", ".jpeg", ".png")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="chain", type=Path, required=True, metavar="DIR", help="a quickstart")
    parser.add_argument("--ensemble", type=Path, required=True, metavar="DIR", help="final/ of an ensemble")
    parser.add_argument("--system", default="sft", help="stage whose final/ is sampled")
    parser.add_argument("--images", type=int, default=200, help="pictures to sample on")
    parser.add_argument("--samples", type=int, default=64, help="completions a picture; a power of two")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--std-penalty", type=float, nargs="+", default=[1.0], metavar="λ")
    parser.add_argument("--pairs", type=int, default=200, help="of each caption source, for the second table")
    parser.add_argument("--photographs", type=Path, metavar="DIR", help="a folder of JPEG or PNG files")
    parser.add_argument("--seed", type=int, default=9002)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    arguments = parser.parse_args(argv)
    ensemble = LearnedReward.load(arguments.ensemble)
    if not isinstance(ensemble, EnsembleReward):
        parser.error(f"{arguments.ensemble} is a single reward model")
    found = {"best_of_n": best_of(ensemble, arguments), "disagreement": disagreement(ensemble, arguments)}
    sys.stdout.write(json.dumps(found) + "\n" if arguments.json else tables(found))
    return 0


def best_of(ensemble: EnsembleReward, arguments: argparse.Namespace) -> dict[str, Any]:
    """``best_of_n_curve`` of every scorer on the samples of one policy."""
    scenes = scenes_of("test", arguments.seed, "seen", arguments.images)[: arguments.images]
    rows = prompts_about(scenes, "caption")
    generation = GenerationSpec(
        max_new_tokens=_MAX_NEW_TOKENS, temperature=arguments.temperature, batch_size=_BATCH
    )
    with tempfile.TemporaryDirectory() as folder:
        texts = sample_completions(
            load_policy(arguments.chain, arguments.system),
            rows,
            number=arguments.samples,
            generation=generation,
            seed=arguments.seed,
            file=Path(folder) / "completions.jsonl",
        )
    columns = (
        [row.prompt for row in rows for _ in range(arguments.samples)],
        [row.images for row in rows for _ in range(arguments.samples)],
        [text for several in texts for text in several],
    )
    single = LearnedReward.load(arguments.chain / "reward" / "final").score(*columns, label="single")
    members = ensemble.member_scores(*columns, label="member")
    scores = {
        f"pessimistic, λ = {p:g}": members.mean(axis=0) - p * members.std(axis=0)
        for p in arguments.std_penalty
    }
    scores |= {"single": single, "mean": members.mean(axis=0)}
    scores |= {f"member {index}": member for index, member in enumerate(members)}
    shape = (len(rows), arguments.samples)
    worth = np.array(
        [[gold(scene, text) for text in several] for scene, several in zip(scenes, texts, strict=True)]
    )
    return best_of_n_curve({name: column.reshape(shape) for name, column in scores.items()}, worth)


def disagreement(ensemble: EnsembleReward, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """How far the members are apart before each kind of picture, with 95 % intervals over pairs."""
    rows, unseen = (
        [
            row
            for row in bundled_pairs(
                scenes_of("test", arguments.seed, kind, arguments.pairs), arguments.seed, arguments.pairs
            )
            if row.task == "caption"
        ]
        for kind in ("seen", "unseen")
    )
    own = [row.images for row in rows]
    shown: dict[str, tuple[Sequence[PreferenceRow], list[tuple[ImageSource, ...]]]] = {
        "own": (rows, own),
        "another scene's": (rows, [*own[7:], *own[:7]]),
        "unseen combinations": (unseen, [row.images for row in unseen]),
        "negative": (rows, [(altered(images[0], noise=False),) for images in own]),
        "noise": (rows, [(altered(images[0], noise=True),) for images in own]),
    }
    if arguments.photographs is not None:
        files = sorted(path for path in arguments.photographs.iterdir() if path.suffix in _PICTURES)
        shown["photographs"] = (rows, [(files[index % len(files)],) for index in range(len(rows))])
    return {name: spread(ensemble, pairs, pictures) for name, (pairs, pictures) in shown.items()}


def spread(
    ensemble: EnsembleReward, rows: Sequence[PreferenceRow], images: list[tuple[ImageSource, ...]]
) -> dict[str, Any]:
    """``std`` of the scores, ``difference_std`` of chosen − rejected, ``split``: the share without one mind."""
    prompts = [row.prompt for row in rows]
    texts = [*(row.chosen for row in rows), *(row.rejected for row in rows)]
    scores = ensemble.member_scores([*prompts, *prompts], [*images, *images], texts, label="disagreement")
    chosen, rejected = scores[:, : len(rows)], scores[:, len(rows) :]
    differences: NDArray[np.float64] = chosen - rejected
    columns = {
        "std": (chosen.std(axis=0) + rejected.std(axis=0)) / 2,
        "difference_std": differences.std(axis=0),
        "split": (differences > 0).any(axis=0) & (differences <= 0).any(axis=0),
    }
    draws = bootstrap(means(columns), units=len(rows))
    return {"pairs": len(rows), **{name: interval(draws, name).as_dict() for name in columns}}


def tables(found: dict[str, Any]) -> str:
    """Both tables in Markdown, and the paired differences at the largest n."""
    best, apart = found["best_of_n"], found["disagreement"]
    lines = [
        "| chosen by | " + " | ".join(f"n = {n}" for n in best["n"]) + " |",
        "|---" * (len(best["n"]) + 1) + "|",
    ]
    for name, curve in best["curves"].items():
        cells = [*(f"{point['mean']:.3f}" for point in curve[:-1]), _shown(curve[-1])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    told = {name: value for name, value in best["differences"].items() if name.startswith("pessimistic")}
    lines += ["", *(f"{name}: {_shown(value)}" for name, value in told.items()), ""]
    lines += ["| pictures | pairs | std | std of the difference | not of one mind |", "|---" * 5 + "|"]
    for name, row in apart.items():
        cells = [_shown(row[column]) for column in ("std", "difference_std", "split")]
        lines.append(f"| {name} | {row['pairs']} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _shown(value: dict[str, float]) -> str:
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


if __name__ == "__main__":
    raise SystemExit(main())
