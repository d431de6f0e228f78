"""A reward of ours as a reward function of TRL's RLOO and GRPO trainers.

The dataset must carry the columns ``sample_id, task, images`` and ``references`` or ``answers``; TRL hands
every column on, repeated a generation.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import DataError
from toolkit.records import ImageSource, PromptRow
from toolkit.rewards.base import Reward, RewardBatch

__all__ = ["as_trl_reward"]


def as_trl_reward(reward: Reward, *, end_token_id: int) -> Callable[..., list[float | None]]:
    """A function with TRL's signature ``fn(prompts, completions, completion_ids, **columns)``.

    A completion counts as ended when its ids close with ``end_token_id``. The result holds None where the
    reward does not apply and NaN where it failed. Parts are logged through TRL's ``log_metric`` where TRL
    passes it.
    """

    def function(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        **columns: Any,
    ) -> list[float | None]:
        rows = [_row(index, prompt, columns) for index, prompt in enumerate(prompts)]
        batch = RewardBatch(
            rows=rows,
            completions=[_text(completion) for completion in completions],
            ended=[bool(len(ids)) and int(ids[-1]) == end_token_id for ids in completion_ids],
            num_tokens=[len(ids) for ids in completion_ids],
            token_ids=[list(ids) for ids in completion_ids],
        )
        output = reward(batch)
        log_metric = columns.get("log_metric")
        if callable(log_metric):
            for name, part in output.parts.items():
                if np.isfinite(part).any():
                    log_metric(f"reward/{name}", float(np.nanmean(part)))
        return [float(score) if ok else None for score, ok in zip(output.scores, output.applies, strict=True)]

    function.__name__ = reward.name
    return function


def _text(completion: Any) -> str:
    """A completion's text: TRL passes one assistant message for conversational data, a string otherwise."""
    content = completion if isinstance(completion, str) else completion[-1]["content"]
    if not isinstance(content, str):
        content = "".join(block.get("text", "") for block in content)
    return content.strip()


def _image(image: Any) -> ImageSource:
    """A picture as TRL passes it (decoded, or ``{"bytes", "path"}``) as a path or PNG bytes."""
    if isinstance(image, dict):
        image = image["bytes"] if image.get("bytes") is not None else image["path"]
    if isinstance(image, bytes):
        return image
    if hasattr(image, "save"):
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        return buffer.getvalue()
    return Path(image)


def _row(index: int, prompt: Any, columns: dict[str, Any]) -> PromptRow:
    missing = [name for name in ("sample_id", "task") if name not in columns]
    if missing:
        raise DataError("reward function", f"the dataset lacks the columns {missing}")
    task = columns["task"][index]
    sample_id = str(columns["sample_id"][index])
    return PromptRow(
        sample_id=sample_id,
        task=task,
        prompt=prompt if not isinstance(prompt, str) else [{"role": "user", "content": prompt}],
        images=tuple(_image(image) for image in (columns.get("images") or [()] * (index + 1))[index] or ()),
        image_id=columns["image_id"][index] if "image_id" in columns else sample_id,
        references=tuple(columns["references"][index] or ()) if "references" in columns else (),
        answers=tuple(columns["answers"][index] or ()) if "answers" in columns else (),
    )
