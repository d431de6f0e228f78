"""A PPO run in a process of its own, for the tests that kill or launch it: ``python run_ppo.py '{"base":
…}'``.

``mode: train`` runs the loop; with ``stop: [iteration, minibatches]`` a signal reaches the first process there.
``mode: steps`` makes every process sample the same completions, take its share, and do eight optimizer steps on them;
it writes the losses to ``steps.json`` and the adapter to ``final/``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from conftest import load_policy, make_recipe, make_reward, make_rows, stop_in

from toolkit.rewards.base import RewardOutput
from toolkit.rl.experience import build_experience
from toolkit.rl.monitor import Means, update_means
from toolkit.rl.rollout import derived_seed
from toolkit.rl.state import save_policy
from toolkit.rl.trainer import PpoTrainer
from toolkit.runs.directory import RunDirectory

STEP_ROWS = 16


def steps(trainer: PpoTrainer) -> None:
    """Two updates of two epochs and two minibatches over one batch that is split over the processes."""
    engine = trainer.engine
    rows = trainer.rows[:STEP_ROWS]
    prompts, completions = trainer.worker.sample(rows, seed=11, samples=1)
    share = STEP_ROWS // engine.world
    own = slice(engine.rank * share, (engine.rank + 1) * share)
    rollout = trainer.worker.score(rows[own], prompts[own], completions[own])
    scores = torch.tensor(
        [derived_seed(row.sample_id) % 1000 / 250.0 for row in rows[own]], dtype=torch.float64
    )
    experience = build_experience(
        rollout, RewardOutput(scores.numpy()), trainer.recipe.ppo, kl_coefficient=0.1, reduce=engine.all_sum
    )
    found = []
    for epoch in range(2):
        statistics = trainer.updater.update(experience, seed=epoch, warming_up=False)
        means = Means()
        update_means(means, statistics)
        found.append({**means.reduced(engine), "grad_norms": statistics.grad_norms})
    save_policy(trainer.run.final, trainer.vlm, engine)
    if engine.is_main:
        (trainer.run.path / "steps.json").write_text(json.dumps(found))


def main(arguments: dict[str, Any]) -> None:
    """Build the trainer and do what ``mode`` says."""
    torch.set_num_threads(1)
    recipe = make_recipe(Path(arguments["out"]), **arguments["changes"])
    run = RunDirectory(recipe.run.output_dir)
    resume = arguments.get("resume", False)
    run.prepare(recipe, resume=resume)
    policy = load_policy(Path(arguments["base"]), bits=arguments.get("bits"), **arguments.get("weights", {}))
    rows = make_rows(20, vqa=arguments.get("vqa", False))
    trainer = PpoTrainer(policy, make_reward(recipe), rows, make_rows(8, start=100), recipe, run)
    if arguments.get("world", 1) != trainer.engine.world:
        raise RuntimeError(f"world of {trainer.engine.world}")
    if "stop" in arguments and trainer.engine.is_main:
        iteration, after = arguments["stop"]
        stop_in(trainer, iteration, after=after)
    trainer.train(resume=resume) if arguments.get("mode", "train") == "train" else steps(trainer)
    run.release()
    state = {f"{name} {task}": found.as_dict() for (name, task), found in trainer.reward.calibration.items()}
    (Path(arguments["out"]) / f"calibration-{trainer.engine.rank}.json").write_text(json.dumps(state))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
