"""Several processes decode what one would, and the first of them scores it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.config.schema import CaptionSource, DecodingSpec, ModelSpec
from toolkit.data.sources import load_prompt_rows
from toolkit.evaluation.predict import decoding_header, is_complete, missing_batches
from toolkit.evaluation.predictions import PredictionFile
from toolkit.evaluation.shares import DecodingTask, decode_together

from .conftest import recipe_for

DECODING = DecodingSpec(max_new_tokens=4, batch_size=4)


@pytest.mark.usefixtures("one_process")
def test_shares_of_an_interrupted_run_are_kept(scenes: Path, checkpoint: Path, tmp_path: Path) -> None:
    source = CaptionSource(kind="caption", captions="test/captions.json", images="test/images")
    rows = load_prompt_rows([source], scenes)
    model = ModelSpec(id=str(checkpoint))
    whole = PredictionFile(tmp_path / "predictions.jsonl", decoding_header(model, rows, DECODING))
    task = DecodingTask(model, rows, tmp_path, "decode")
    decode_together([task], DECODING)
    assert is_complete(whole, rows, DECODING)
    expected = whole.read()
    # As two processes leave it that were killed: nothing gathered, one batch whole, one torn.
    first, second, *_ = missing_batches(PredictionFile(tmp_path / "none", {}), rows, DECODING)
    whole.path.unlink()
    share = PredictionFile(tmp_path / "predictions.process1.jsonl", whole.header)
    share.keep(expected[row.sample_id] for row in [*first, *second[:-1]])
    calls: list[int] = []
    decode_together([task], DECODING, lambda: calls.append(1))
    assert whole.read() == expected
    assert len(calls) == -(-len(rows) // 4) - 1
    assert [path.name for path in tmp_path.glob("predictions*")] == ["predictions.jsonl"]


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher around the tests."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_give_the_summary_of_one(scenes: Path, checkpoint: Path, tmp_path: Path) -> None:
    summaries, batches = {}, {}
    for count in (1, 2):
        out = tmp_path / f"by-{count}"
        recipe = recipe_for(scenes, out, {"base": checkpoint}, blind_from="base")
        path = tmp_path / f"by-{count}.yaml"
        path.write_text(recipe.model_dump_json())
        launch = ["--launch", "ddp", "--processes", "2"] if count == 2 else []
        command = [sys.executable, "-m", "toolkit", "run", str(path), *launch]
        done = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, timeout=240
        )
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        decoded = re.findall(rb"decode base  (\d+)/(\d+)", done.stderr)[-1]
        batches[count] = int(decoded[0])  # by the first process, which alone is heard
        summaries[count] = json.loads((out / "summary.json").read_text())
        assert not list(out.glob("systems/*/predictions.process*"))
    assert batches[2] == -(-batches[1] // 2)
    assert summaries[1]["rows"] == summaries[2]["rows"]
    assert summaries[1]["intervals"] == summaries[2]["intervals"]
