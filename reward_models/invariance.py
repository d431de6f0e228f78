"""That a score depends on prompt, pictures and completion alone: measured on rows of the user's own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reward_models.scorer import LearnedReward
from toolkit.models.encoding import collate
from toolkit.models.packing import can_pack, pack_completions
from toolkit.records import PreferenceRow

__all__ = ["invariance"]


def invariance(reward: LearnedReward, rows: Sequence[PreferenceRow]) -> dict[str, float]:
    """The largest change of a score, in its own unit, between a row alone and other ways to compute it.

    Args:
        reward: a single reward model.
        rows: some pairs; both completions of each are scored.

    Returns:
        ``batch_right_padded``, ``batch_left_padded`` (both in one batch with all others), ``other_position`` (the
        batch reversed), and ``packed`` behind one prompt where the model allows it.
    """
    encoder, vlm, model = reward.encoder, reward.model.vlm, reward.model
    prompts = encoder.encode([row.prompt for row in rows], [row.images for row in rows])
    texts = [encoder.completions([row.chosen, row.rejected]) for row in rows]
    repeated = [prompt for prompt in prompts for _ in range(2)]
    flat = [text for pair in texts for text in pair]
    was_training = model.model.training
    model.model.eval()
    with torch.no_grad():
        alone = torch.cat(
            [
                model(collate(vlm, [prompt], [text], padding_side="right"))
                for prompt, text in zip(repeated, flat, strict=True)
            ]
        )
        ways = {
            "batch_right_padded": model(collate(vlm, repeated, flat, padding_side="right")),
            "batch_left_padded": model(collate(vlm, repeated, flat, padding_side="left")),
            "other_position": model(collate(vlm, repeated[::-1], flat[::-1], padding_side="right")).flip(0),
        }
        if can_pack(vlm):
            ways["packed"] = model(*pack_completions(vlm, prompts, texts)).flatten()
    model.model.train(was_training)
    return {name: float((scores - alone).abs().max()) for name, scores in ways.items()}
