"""Train a reward model (VLM + scalar head) on preference pairs.

vlm-rlhf run recipes/configs/scenes/reward.yaml model.id=out/sft/final data.root=DIR
"""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.cli.stage import stage_main
from toolkit.config.schema import RewardRecipe
from toolkit.runs.directory import RunDirectory


def run(recipe: RewardRecipe, directory: RunDirectory, resume: bool) -> None:
    """Train; ``final/`` holds adapter, ``reward_head.safetensors`` and ``reward_config.json``."""
    from reward_models.data import load_reward_data

    data = load_reward_data(recipe)
    from reward_models.ensemble_stage import train_ensemble

    train_ensemble(recipe, directory, resume, data=data)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line and return its exit code."""
    return stage_main("reward", run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
