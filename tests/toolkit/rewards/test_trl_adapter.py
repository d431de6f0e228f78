"""Our rewards behind TRL's signature, with the columns TRL passes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.config.schema import RewardTerm
from toolkit.records import image_prompt
from toolkit.rewards.base import RewardBatch, RewardOutput
from toolkit.rewards.building import build_reward
from toolkit.rewards.trl_adapter import as_trl_reward


class Recorder:
    """Scores nothing and keeps what it was given."""

    name, scale, may_be_constant = "recorder", "0, or not applicable to captions", True
    background = False
    seen: RewardBatch

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        self.seen = batch
        applicable = np.array([row.task == "vqa" for row in batch.rows])
        return RewardOutput(np.where(applicable, 0.0, np.nan), applicable=applicable)


def test_rows_endings_and_pictures_arrive() -> None:
    recorder = Recorder()
    picture = Image.new("RGB", (4, 4), "red")
    scores = as_trl_reward(recorder, end_token_id=2)(
        prompts=[image_prompt("Describe."), image_prompt("Which?")],
        completions=[
            [{"role": "assistant", "content": " a circle"}],
            [{"role": "assistant", "content": "red"}],
        ],
        completion_ids=[[5, 6, 2], [7]],
        sample_id=["1", "2"],
        task=["caption", "vqa"],
        references=[["a circle"], None],
        answers=[None, ["red"]],
        images=[[picture], [{"bytes": None, "path": "b.png"}]],
    )
    assert scores == [None, 0.0]
    seen = recorder.seen
    assert list(seen.completions) == ["a circle", "red"]
    assert list(seen.ended) == [True, False]
    assert list(seen.num_tokens) == [3, 1]
    assert seen.rows[0].references == ("a circle",)
    assert seen.rows[1].answers == ("red",)
    data = seen.rows[0].images[0]
    assert isinstance(data, bytes)
    assert Image.open(io.BytesIO(data)).getpixel((0, 0)) == (255, 0, 0)
    assert seen.rows[1].images == (Path("b.png"),)


def test_parts_are_logged_through_trl() -> None:
    reward = build_reward([RewardTerm(term="bleu", options={"order": 1})], references={})
    logged: dict[str, float] = {}
    as_trl_reward(reward, end_token_id=2)(
        prompts=[image_prompt("Describe.")],
        completions=["a circle"],
        completion_ids=[[5, 2]],
        sample_id=["1"],
        task=["caption"],
        references=[["a circle"]],
        log_metric=logged.__setitem__,
    )
    assert logged["reward/bleu"] > 0.99
