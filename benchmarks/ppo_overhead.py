"""Our PPO iteration against a plain loop on the same rollouts, and how often the vision tower runs.

    python benchmarks/ppo_overhead.py [--pairs N] [--json]     (about 60 s on one core)

Both sides train the same LoRA on the same random LLaVA of a million parameters, from the same random numbers: 64
rollouts of 12 tokens, two epochs of two minibatches. The plain side is ``ppo_plain.py`` and does nothing else; ours
checks, logs and guards as in any run. They take turns, each pair gives a ratio, and the median counts: ``overhead``
(picture features reused, as always) and ``overhead_without_reuse``. ``same_adapter`` is the largest difference of a
weight afterwards. For three families ``tower`` gives the tower's forwards and pictures an iteration with and without
reuse, and whether both end at the same adapter to the last bit.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout that is not installed serves too
from PIL import Image
from ppo_plain import PlainPpo
from ppo_setup import FAMILIES, load_policy, make_recipe, make_rows, make_trainer, save_base

from toolkit.cli.guard import libraries_on_stderr
from toolkit.models.encoding import EncodedPrompt
from toolkit.models.roles import POLICY, role_parameters
from toolkit.models.structure import trunk
from toolkit.records import PromptRow
from toolkit.rl.calibration import calibrate
from toolkit.rl.rollout import RolloutWorker, derived_seed
from toolkit.rl.trainer import PpoTrainer
from toolkit.rl.update import minibatches

RANK, ROWS, MAX_NEW_TOKENS = 16, 64, 12


class PixelWorker(RolloutWorker):
    """Samples as the trainer's worker does, without computing picture features beforehand."""

    def encoded(self, rows: Sequence[PromptRow]) -> list[EncodedPrompt]:
        """Prompts with their pixels."""
        return self.cache.encode(rows)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5, help="timed iterations of each side")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    with libraries_on_stderr(), tempfile.TemporaryDirectory() as name:
        result = race(Path(name), arguments.pairs)
        result["tower"] = {family: tower(Path(name) / family, family) for family in FAMILIES}
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
        return 0
    for key, value in result.items():
        if key != "tower":
            sys.stdout.write(f"{key:28}{value:>12.4g}\n")
    for family, row in result["tower"].items():
        sys.stdout.write(
            f"tower {family:14}" + "  ".join(f"{key} {value}" for key, value in row.items()) + "\n"
        )
    return 0


def trainer_in(folder: Path, base: Path, rows: list[PromptRow], *, reuse: bool, **blocks: Any) -> PpoTrainer:
    """A calibrated trainer, ready to iterate."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer = make_trainer(load_policy(base, bits=None, rank=RANK), rows, make_recipe(folder, **blocks))
    if not reuse:
        trainer.worker.__class__ = PixelWorker
    calibrate(trainer.reward, trainer.worker, rows, trainer.recipe)
    return trainer


def race(folder: Path, pairs: int) -> dict[str, Any]:
    """Median ratios of the pairs, seconds, and how far the two sides are apart at the end."""
    base, rows = save_base(folder / "base"), make_rows(ROWS, size=48)
    ours = trainer_in(folder / "ours", base, rows, reuse=True)
    pixels = trainer_in(folder / "pixels", base, rows, reuse=False)
    moments = ours.reward.calibration["variety", "caption"]

    def score(texts: list[str]) -> torch.Tensor:
        return torch.tensor([(len(set(text)) - moments.mean) / moments.std for text in texts])

    images = [Image.open(io.BytesIO(row.images[0])) for row in rows]  # type: ignore[arg-type]
    plain = PlainPpo(base, rank=RANK, images=images, score=score)
    with torch.no_grad():  # the same start, whatever order each side draws its weights in
        for own, (_, parameter) in zip(plain.trained, role_parameters(ours.vlm.model, POLICY), strict=False):
            own.copy_(parameter)
    place = {id(row): index for index, row in enumerate(rows)}

    def plain_iteration(number: int) -> None:
        seed = derived_seed(0, "iteration", number)
        shuffle = derived_seed(seed, "minibatches")
        epochs = [
            minibatches(ROWS, 2, world=1, rank=0, seed=derived_seed(shuffle, epoch)) for epoch in range(2)
        ]
        chosen = [place[id(row)] for row in ours.order.share(number)]
        sampling = derived_seed(seed, "sample", 0)
        plain.iterate(chosen, seed=sampling, epochs=epochs, max_new_tokens=MAX_NEW_TOKENS)

    times: dict[str, list[float]] = {"ours": [], "pixels": [], "plain": []}
    for number in range(1 + pairs):
        sides: list[tuple[str, Callable[[], Any]]] = [
            ("ours", ours._iterate),
            ("plain", functools.partial(plain_iteration, number)),
            ("pixels", pixels._iterate),
        ]
        for name, side in sides if number % 2 else reversed(sides):
            began = time.perf_counter()
            side()
            if number:  # the first is for warming up, and holds the checks of a run's start
                times[name].append(time.perf_counter() - began)
    apart = max(
        float((own - parameter).detach().abs().max())
        for own, (_, parameter) in zip(plain.trained, role_parameters(ours.vlm.model, POLICY), strict=False)
    )
    ours.run.release()
    pixels.run.release()
    return {
        "overhead": _ratio(times["ours"], times["plain"]),
        "overhead_without_reuse": _ratio(times["pixels"], times["plain"]),
        **{f"{name}_seconds": statistics.median(found) for name, found in times.items()},
        "same_adapter": apart,
    }


def _ratio(ours: list[float], plain: list[float]) -> float:
    return statistics.median(first / second for first, second in zip(ours, plain, strict=True))


def tower(folder: Path, family: str) -> dict[str, Any]:
    """Forwards of the tower and pictures it saw in the second iteration, with and without reuse."""
    folder.mkdir()
    base, rows = save_base(folder / "base", family), make_rows(16, size=48)
    counts: dict[bool, tuple[int, int]] = {}
    adapters = []
    for reuse in (True, False):
        blocks: dict[str, Any] = {
            "rollout": {"prompts_per_iteration": 16},
            "guards": {"calibration_samples": 16},
            "run": {"output_dir": str(folder / f"run-{reuse}"), "log_every_steps": 100},
        }
        trainer = trainer_in(folder, base, rows, reuse=reuse, **blocks)
        trainer._iterate()
        counts[reuse] = counted(trainer)
        adapters.append(
            [parameter.detach().clone() for _, parameter in role_parameters(trainer.vlm.model, POLICY)]
        )
        trainer.run.release()
    return {
        "forwards": counts[True][0],
        "pictures": counts[True][1],
        "forwards_without_reuse": counts[False][0],
        "pictures_without_reuse": counts[False][1],
        "distinct_pictures": len(rows),
        "bit_exact": all(torch.equal(a, b) for a, b in zip(*adapters, strict=True)),
    }


def counted(trainer: PpoTrainer) -> tuple[int, int]:
    """Calls of the tower and pictures in them during one iteration."""
    inner = trunk(trainer.vlm.model)
    original, found = inner.get_image_features, [0, 0]

    @functools.wraps(original)  # generate reads the signature
    def watched(*arguments: Any, **named: Any) -> Any:
        output = original(*arguments, **named)
        found[0] += 1
        found[1] += len(output.pooler_output)
        return output

    inner.get_image_features = watched  # type: ignore[assignment]
    try:
        trainer._iterate()
    finally:
        del inner.get_image_features
    return found[0], found[1]


if __name__ == "__main__":
    raise SystemExit(main())
