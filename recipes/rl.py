"""PPO on a composite reward, from an SFT adapter: policy, reference, critic and reward on one base.

vlm-rlhf run recipes/configs/scenes/ppo.yaml model.id=out/sft/final data.root=DIR rewards.1.model=out/reward/final
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from toolkit.cli.stage import stage_main
from toolkit.config.schema import DecodingSpec, RlRecipe, VllmSpec
from toolkit.errors import CheckpointError
from toolkit.records import PromptRow
from toolkit.runs.directory import RunDirectory

if TYPE_CHECKING:
    from toolkit.models.loading import LoadedVlm
    from toolkit.rewards.base import Reward
    from toolkit.rewards.composite import CompositeReward
    from toolkit.rewards.held_out import HeldOut

_log = logging.getLogger("vlm_rlhf.rl")


def run(recipe: RlRecipe, directory: RunDirectory, resume: bool) -> None:
    """Train; ``final/`` holds the policy's adapter and processor."""
    from toolkit.data.sources import load_parts, load_prompt_rows
    from toolkit.rewards.coverage import refuse_unscored_tasks

    rows, val_rows = load_parts(recipe.data, load_prompt_rows)
    refuse_unscored_tasks(recipe.rewards, rows)
    from toolkit.models.encoding import check_prompts
    from toolkit.models.loading import load_vlm
    from toolkit.models.vllm_server import connect
    from toolkit.rewards.building import build_reward
    from toolkit.rl.trainer import PpoTrainer

    if recipe.rollout.backend == "vllm":  # a server that is not there is told before a model loads
        connect(recipe.rollout.vllm or VllmSpec(), recipe.model)
    policy = load_vlm(recipe.model, trainable=True)
    check_prompts(policy, [(f"{row.task} {row.sample_id}", row.prompt) for row in (*rows, *val_rows)])
    learned = {
        term.model: load_learned(policy, recipe, term.model)
        for term in recipe.rewards
        if term.term == "learned" and term.model is not None
    }
    references = {row.image_id: row.references for row in rows if row.references}
    reward = build_reward(recipe.rewards, references=references, learned=learned)
    held_out = held_out_evaluation(reward, val_rows, recipe) if val_rows else None
    PpoTrainer(policy, reward, rows, val_rows, recipe, directory, held_out).train(resume)


def load_learned(policy: LoadedVlm, recipe: RlRecipe, path: str) -> Reward:
    """The reward model as an adapter on the policy's base; on a base of its own where it was trained on another."""
    from reward_models.scorer import LearnedReward

    size = recipe.rollout.generation_batch_size
    try:
        return LearnedReward.attach(policy, recipe.model, path, batch_size=size)
    except CheckpointError as error:
        _log.info("the reward model gets a base of its own: %s", error.message)
    return LearnedReward.load(path, batch_size=size)


def held_out_evaluation(
    reward: CompositeReward, rows: Sequence[PromptRow], recipe: RlRecipe
) -> Callable[[LoadedVlm], HeldOut]:
    """A function that decodes the validation prompts greedily and scores them by every term of the reward."""
    from toolkit.evaluation.predict import predict_rows
    from toolkit.rewards.base import RewardBatch
    from toolkit.rewards.held_out import HeldOut, held_out_scores

    decoding = DecodingSpec(
        max_new_tokens=recipe.rollout.max_new_tokens, batch_size=recipe.rollout.generation_batch_size
    )

    def evaluate(vlm: LoadedVlm) -> HeldOut:
        predictions = predict_rows(vlm, rows, decoding=decoding, label="validation")
        batch = RewardBatch(
            rows=rows,
            completions=[prediction.text for prediction in predictions],
            ended=[prediction.ended for prediction in predictions],
            num_tokens=[prediction.num_tokens for prediction in predictions],
        )
        found = held_out_scores(reward, batch)
        tokens = {"mean_tokens": float(np.mean(batch.num_tokens))}
        return HeldOut({**found.numbers, **tokens}, found.standardised)

    return evaluate


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line and return its exit code."""
    return stage_main("rl", run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
