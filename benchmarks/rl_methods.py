"""Reinforcement learning methods and rewards side by side, from finished quickstarts, at equal rollout budgets.

    python benchmarks/quickstart_seeds.py --seeds 0 1 2 --out out/seeds
    python benchmarks/rl_methods.py --from out/seeds/seed-0 out/seeds/seed-1 out/seeds/seed-2 --out out/rl-methods

Trains the methods of ``rl_methods_recipes.py`` from each quickstart's SFT adapter and reward model, and evaluates SFT,
DPO and all of them on the held-out test split, greedily, with their own pictures and with shuffled ones. What is
finished is not run again (the quickstart's own PPO run serves where its recipe is the same), so the command may be
interrupted and repeated. A run takes as long as the quickstart's PPO, an evaluation about 40 s at full size.

``--json`` prints ``{"seeds": {seed: {system: {"scores", "vision_gap", "minus_sft", …}}}, "aims": {seed: …}}``; trained
systems also have ``rollouts``, ``seconds`` and ``warnings`` (what the guard rails said). ``vision_gap`` is a score with
the right pictures minus that with shuffled ones; differences are ``{"mean", "low", "high"}`` with 95 % paired-bootstrap
intervals. ``--sft-steps N`` first trains an SFT adapter of N steps and starts all runs from that: how far a reward
carries a policy that imitation has not brought to the end.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout that is not installed serves too
from rl_methods_recipes import METHODS, eval_recipe, rl_recipe, same_training, sft_recipe
from rl_methods_tables import tables

from toolkit.cli.guard import guarded, libraries_on_stderr
from toolkit.config.loading import load_recipe
from toolkit.config.schema import RlRecipe
from toolkit.errors import UsageError
from toolkit.evaluation.intervals import Draws, bootstrap, means, paired_difference, pooled_mean
from toolkit.metrics.diversity import score_diversity
from toolkit.metrics.files import read_json, read_rows
from toolkit.runs.logging import setup_logging
from toolkit.runs.offline import quiet_environment

SCORES = ("cider", "reward", "gold", "mean_tokens", "vqa_accuracy")
BASELINES = ("sft", "dpo")
_log = logging.getLogger("vlm_rlhf.benchmark")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="chains", type=Path, nargs="+", required=True, metavar="DIR",
                        help="finished quickstarts, one for each seed")  # fmt: skip
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--iterations", type=int, help="of every run; that of the recipe by default")
    parser.add_argument(
        "--sft-steps", type=int, help="start from an SFT of so many steps, not the quickstart's"
    )
    parser.add_argument("--out", type=Path, default=Path("out/rl-methods"))
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    arguments = parser.parse_args(argv)
    quiet_environment()
    setup_logging()

    def work() -> int:
        seeds: dict[int, dict[str, Any]] = {}
        with libraries_on_stderr():
            for chain in arguments.chains:
                seed = seed_of(chain)
                if seed in seeds:
                    raise UsageError(f"--from {chain}: a quickstart of seed {seed} was named before it")
                folder = arguments.out / f"seed-{seed}"
                start = started(chain, folder, arguments.sft_steps)
                seeds[seed] = measured(chain, folder, arguments.methods, seed, arguments.iterations, start)
        found = {"seeds": seeds, "aims": {seed: aims(systems) for seed, systems in seeds.items()}}
        for systems in seeds.values():
            for system in systems.values():
                del system["draws"]
        text = json.dumps(found) if arguments.json else "\n\n".join(tables(found))
        sys.stdout.write(text + "\n")
        return 0

    return guarded(work)


def seed_of(chain: Path) -> int:
    """The seed of a finished quickstart.

    Raises:
        UsageError: ``chain`` is none.
    """
    needed = ("finished.json", "recipe.resolved.yaml", "sft/final", "dpo/final", "reward/final", "data")
    missing = [name for name in needed if not (chain / name).exists()]
    if missing:
        raise UsageError(
            f"--from {chain} is no finished quickstart: {', '.join(missing)} not there",
            remedy=f"vlm-rlhf quickstart --out {chain}",
        )
    return load_recipe(chain / "recipe.resolved.yaml").run.seed


def started(chain: Path, folder: Path, steps: int | None) -> Path | None:
    """The SFT adapter of ``steps`` steps, trained here if it is missing; None: that of ``chain`` serves."""
    if steps is None:
        return None
    recipe = sft_recipe(chain, folder / "sft", steps=steps)
    _run(recipe)
    return Path(recipe.run.output_dir) / "final"


def measured(
    chain: Path, folder: Path, methods: Sequence[str], seed: int, iterations: int | None, start: Path | None
) -> dict[str, dict[str, Any]]:
    """Train and evaluate what is missing; what is known of every system, ``draws`` for further differences."""
    systems: dict[str, dict[str, Any]] = {}
    policies = {name: chain / name / "final" for name in BASELINES} if start is None else {"sft": start}
    for name in methods:
        run, facts = trained(name, chain, folder, seed, iterations, start)
        policies[name] = run / "final"
        systems[name] = facts
    for name, policy in policies.items():
        out = folder / "eval" / name
        _run(eval_recipe(name, policy, chain, out, seed=seed))
        draws, shuffled = draws_of(out, name), draws_of(out, "blind-shuffled")
        systems.setdefault(name, {}).update(
            scores=scores_of(out, name), vision_gap=differences(draws, shuffled), draws=draws
        )
    for found in systems.values():
        found["minus_sft"] = differences(found["draws"], systems["sft"]["draws"])
    return {name: systems[name] for name in policies}


def trained(
    name: str, chain: Path, folder: Path, seed: int, iterations: int | None, start: Path | None
) -> tuple[Path, dict[str, Any]]:
    """The run of a method, trained here unless the quickstart's PPO is of the same recipe; rollouts and seconds."""
    recipe = rl_recipe(name, chain, folder / name, seed=seed, iterations=iterations, start=start)
    run = Path(recipe.run.output_dir)
    if start is None and not run.exists() and _has_trained(chain / "ppo", recipe):
        run = chain / "ppo"
        _log.info("%s is %s", name, run)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        with _warnings_to(folder / f"{name}.warnings"):
            _run(recipe)
    said = folder / f"{name}.warnings"
    return run, {
        "rollouts": recipe.ppo.iterations
        * recipe.rollout.prompts_per_iteration
        * recipe.rollout.samples_per_prompt,
        "seconds": read_json(run / "finished.json")["seconds"],
        "warnings": said.read_text(encoding="utf-8").splitlines() if said.exists() else None,
    }


def _has_trained(run: Path, recipe: RlRecipe) -> bool:
    if not (run / "finished.json").exists():
        return False
    before = load_recipe(run / "recipe.resolved.yaml")
    return isinstance(before, RlRecipe) and same_training(before, recipe)


def _run(recipe: Any) -> None:
    """Run a stage in this process as the quickstart does; a finished one returns at once."""
    from recipes.pipeline import seed_everything, stage_function
    from toolkit.cli.stage import run_stage

    seed_everything(recipe.run.seed)
    directory = run_stage(recipe, stage_function(recipe.stage), resume=True)
    directory.stop.raise_if_requested(f"stopped after {directory.path}; the same command goes on from there")


@contextmanager
def _warnings_to(path: Path) -> Iterator[None]:
    """Warnings of the RL loop, a line each, kept over interruptions."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("vlm_rlhf.rl")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


# ---- from the files of an evaluation -----------------------------------------------------------------------------


def scores_of(folder: Path, name: str) -> dict[str, float]:
    """The row of the evaluation's summary, and the number of different words in all captions."""
    row = read_json(folder / "summary.json")["rows"][name]
    captions = {line["image_id"]: [line["caption"]] for line in _lines(folder, name, "per_image")}
    return {
        **{key: row[key] for key in SCORES},
        "vocabulary": score_diversity(captions)["vocabulary"],
    }


def draws_of(folder: Path, name: str) -> dict[str, Draws]:
    """Bootstrap draws of every score: over images, for answers over images with all their questions."""
    captions = _lines(folder, name, "per_image")
    columns = {key: [line[key] for line in captions] for key in SCORES if key in captions[0]}
    image_of = {
        row["question_id"]: row["image_id"]
        for row in read_rows(folder / "annotations.json", "annotations", ("question_id", "image_id"))
    }
    groups: dict[Any, list[float]] = {}
    for line in _lines(folder, name, "per_question"):
        groups.setdefault(image_of[line["question_id"]], []).append(line["accuracy"])
    return {
        "caption": bootstrap(means(columns), units=len(captions)),
        "vqa": bootstrap(pooled_mean("vqa_accuracy", list(groups.values())), units=len(groups)),
    }


def _lines(folder: Path, name: str, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_json(folder / "systems" / name / f"{kind}.jsonl")
    return found


def differences(a: dict[str, Draws], b: dict[str, Draws]) -> dict[str, dict[str, float]]:
    """``a - b`` of every score, with intervals."""
    return {
        key: paired_difference(a[task], b[task], key).as_dict()
        for task in a
        for key in a[task].point
        if key in b[task].point
    }


def aims(systems: dict[str, dict[str, Any]]) -> dict[str, float]:
    """What the composite reward is to reach, for the systems that there are; ``…_low`` is an interval's lower end."""
    found: dict[str, float] = {}
    if (composite := systems.get("ppo-composite")) is None:
        return found
    found["cider_gain"] = composite["scores"]["cider"] / systems["sft"]["scores"]["cider"] - 1
    for other, key in (("ppo-cider", "gold"), ("ppo-learned", "cider")):
        if other in systems:
            over = differences(composite["draws"], systems[other]["draws"])[key]
            found[f"{key}_over_{other}"] = over["mean"]
            found[f"{key}_over_{other}_low"] = over["low"]
    return found


if __name__ == "__main__":
    raise SystemExit(main())
