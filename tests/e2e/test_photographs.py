"""The chain on real photographs, with few steps: every stage runs and the summary stands beside ``blind``."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow]

ROWS = ("blind", "human", "base", "sft", "ppo", "dpo")
STAGES = ("adapt", "sft", "preferences", "reward", "reward-text-only", "ppo", "dpo", "eval", "report")
# Enough for a policy whose samples share a word with the references, so that no reward is constant.
FEW_STEPS = (
    "stages.0.overrides.trainer.max_steps=12",
    "stages.1.overrides.trainer.max_steps=3",
    "stages.2.overrides.data.train.0.limit=60",
    "stages.3.overrides.trainer.max_steps=3",
    "stages.4.overrides.trainer.max_steps=3",
    "stages.5.overrides.ppo.iterations=1",
    "stages.5.overrides.data.val.0.limit=12",
    "stages.5.overrides.guards.calibration_samples=48",
    "stages.6.overrides.trainer.max_steps=2",
    "stages.7.overrides.resamples=100",
)


@pytest.fixture(scope="module", params=["flickr8k", "coco_mini"])
def chain(request, shared_data: Path, cli, tmp_path_factory) -> Path:
    """The chain's output directory: on ``{file: [captions]}`` and on rows with image ids."""
    folder = shared_data / "images"
    captions = f"{request.param}_captions.json"
    if not (folder / captions).is_file():
        pytest.skip(f"{folder / captions} is not there")
    out = tmp_path_factory.mktemp("photographs") / "out"
    data = (f"data.root={folder}", f"data.captions={captions}", f"data.images={request.param}")
    done = cli("run", "flickr8k/pipeline", *data, f"run.output_dir={out}", *FEW_STEPS)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def test_the_whole_chain_leaves_a_summary_and_a_report(chain: Path) -> None:
    summary = json.loads((chain / "summary.json").read_text())
    assert list(summary["rows"]) == list(ROWS)
    assert len({row["n"] for row in summary["rows"].values()}) == 1
    for name, row in summary["rows"].items():
        assert all(math.isfinite(row[column]) for column in ("cider", "bleu_4", "rouge_l", "reward")), name
        assert (row["gold"], row["vqa_accuracy"]) == (None, None), "photographs have neither"
    assert set(summary["differences"]) == {"sft_minus_base", "ppo_minus_sft", "dpo_minus_sft"}
    assert summary["reward_model"]["n"] > 0
    assert set(summary["seconds"]) == set(STAGES)
    assert (chain / "report" / "report.html").stat().st_size > 10_000

    # People describe photographs better than a model of 1.35 million parameters after a dozen steps.
    assert summary["rows"]["human"]["cider"] > summary["rows"]["sft"]["cider"]


def test_the_constant_caption_is_no_caption_of_a_test_image(chain: Path) -> None:
    told = json.loads((chain / "eval" / "summary.json").read_text())["baselines"]["blind"]
    rows = json.loads((chain / "eval" / "references.json").read_text())
    assert told["constant_caption"] not in {caption for row in rows for caption in row["captions"]}
