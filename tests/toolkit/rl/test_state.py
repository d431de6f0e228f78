"""Resume: a stopped and continued run equals the uninterrupted one to the last bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from toolkit.errors import CheckpointError, Interrupted
from toolkit.models.loading import LoadedVlm
from toolkit.rl.state import load_checkpoint, save_checkpoint
from toolkit.rl.trainer import PpoTrainer

from .conftest import FAMILIES, stop_in

Trainers = Callable[..., PpoTrainer]

STATEFUL: dict[str, Any] = {
    "ppo__iterations": 6,
    "ppo__critic": "adapter",
    "ppo__critic_warmup_iterations": 1,
    "kl__controller": "adaptive",
    "kl__coefficient": 0.1,
    "rewards": [
        {"term": "length", "normalise": "running", "options": {"max_tokens": 1}},
        {"term": "bleu", "options": {"order": 1}, "normalise": "frozen", "schedule": "linear_up"},
    ],
    "rollout__prompts_per_iteration": 8,
    "run__eval_every_steps": 2,
    "vqa": False,
}


def lines_of(trainer: PpoTrainer) -> list[dict[str, Any]]:
    """The metric lines without what a clock wrote."""
    return [
        {name: value for name, value in line.items() if not name.startswith("time/")}
        for line in trainer.run.metrics.read()
    ]


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def evaluate(vlm: LoadedVlm) -> dict[str, float]:
    return {"first_weight": float(next(p for p in vlm.model.parameters() if p.requires_grad).detach().sum())}


@pytest.mark.parametrize(
    ("iteration", "after", "family"),
    [
        *[(*when, "llava") for when in ((1, None), (3, None), (5, None), (1, 0), (1, 3), (4, 1), (6, 2))],
        *[(4, 1, family) for family in FAMILIES if family != "llava"],
    ],
)
def test_a_run_that_was_stopped_goes_on_as_if_nothing_had_happened(
    make_trainer: Trainers, iteration: int, after: int | None, family: str
) -> None:
    """Stopped at the end of an iteration, or after so many of its four minibatches."""
    changes = {**STATEFUL, "family": family}
    whole = make_trainer(name="whole", evaluate=evaluate, **changes)
    whole.train()

    torch.manual_seed(99)
    broken = make_trainer(name="broken", evaluate=evaluate, **changes)
    stop_in(broken, iteration, after=after)
    ended = (
        "after iteration {} of 6" if after is None else "in iteration {} of 6, after {} of its minibatches"
    )
    with pytest.raises(Interrupted, match=ended.format(iteration, after)) as caught:
        broken.train()
    assert caught.value.exit_code == 143
    broken.run.release()
    # Lines of later steps, as a run that was killed after its last checkpoint leaves them.
    broken.run.metrics.write(iteration + 1, stale=1.0)

    torch.manual_seed(1234)
    resumed = make_trainer(name="broken", evaluate=evaluate, resume=True, **changes)
    resumed.train(resume=True)
    assert weights(resumed.run.final) == weights(whole.run.final)
    assert lines_of(resumed) == lines_of(whole)


@pytest.mark.parametrize("estimator", ["grpo", "running"])
def test_a_broken_off_iteration_without_a_critic_and_twice(make_trainer: Trainers, estimator: str) -> None:
    """Groups of samples, answers beside captions, draws by row; the second signal comes at once."""
    changes: dict[str, Any] = {
        "ppo__iterations": 3, "ppo__estimator": estimator, "rollout__samples_per_prompt": 2,
        "rollout__prompts_per_iteration": 4, "rollout__draws": "row", "vqa": True,
        "rewards": [{"term": "vqa_accuracy"}, {"term": "bleu", "options": {"order": 1}}],
    }  # fmt: skip
    whole = make_trainer(name="whole", **changes)
    whole.train()
    for after, resume in ((1, False), (2, True)):
        broken = make_trainer(name="broken", resume=resume, **changes)
        stop_in(broken, 2, after=after)
        with pytest.raises(Interrupted, match=f"in iteration 2 of 3, after {after}"):
            broken.train(resume=resume)
        assert (broken.run.path / "checkpoint-1" / "unfinished.pt").is_file()
        broken.run.release()
    resumed = make_trainer(name="broken", resume=True, **changes)
    resumed.train(resume=True)
    assert weights(resumed.run.final) == weights(whole.run.final)
    assert lines_of(resumed) == lines_of(whole)


def test_resume_without_a_checkpoint_starts_over(make_trainer: Trainers) -> None:
    trainer = make_trainer(ppo__iterations=1)
    trainer.run.metrics.write(1, stale=1.0)
    trainer.train(resume=True)
    assert [("stale" in line, line["step"]) for line in lines_of(trainer)] == [(False, 1)]


def test_a_checkpoint_holds_the_random_states(make_trainer: Trainers, tmp_path: Path) -> None:
    trainer = make_trainer()
    torch.manual_seed(7)
    save_checkpoint(tmp_path / "checkpoint-1", trainer.vlm, trainer.engine, {"iteration": 1})
    drawn = torch.rand(3)
    assert load_checkpoint(tmp_path / "checkpoint-1", trainer.vlm, trainer.engine)["iteration"] == 1
    assert torch.equal(torch.rand(3), drawn)


def test_a_damaged_or_foreign_checkpoint_is_refused(make_trainer: Trainers, tmp_path: Path) -> None:
    trainer = make_trainer()
    folder = tmp_path / "checkpoint-1"
    save_checkpoint(folder, trainer.vlm, trainer.engine, {"iteration": 1})
    (folder / "optimizer.pt").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="cannot be resumed from"):
        load_checkpoint(folder, trainer.vlm, trainer.engine)
    save_checkpoint(folder, trainer.vlm, trainer.engine, {"iteration": 1})
    other = make_trainer(name="other", ppo__critic="adapter")
    with pytest.raises(CheckpointError, match="cannot be resumed from"):
        load_checkpoint(folder, other.vlm, other.engine)
    text = (folder / "rl_state.json").read_text().replace('"processes": 1', '"processes": 2')
    (folder / "rl_state.json").write_text(text)
    with pytest.raises(CheckpointError, match="2 processes, this run has 1"):
        load_checkpoint(folder, trainer.vlm, trainer.engine)


def start(base: Path, out: Path, changes: Mapping[str, Any], *, resume: bool) -> subprocess.Popen[bytes]:
    """The run in a process of its own; what it says goes to ``<out>.log``."""
    arguments = {"base": str(base), "out": str(out), "changes": changes, "resume": resume}
    command = [sys.executable, str(Path(__file__).with_name("run_ppo.py")), json.dumps(arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with (out.parent / f"{out.name}.log").open("ab") as log:
        return subprocess.Popen(command, env=environment, stderr=log)


@pytest.mark.slow
def test_kill_and_resume_in_other_processes(base: Path, tmp_path: Path) -> None:
    """kill -9 after the third checkpoint, whatever was going on then; the end is bit-identical."""
    changes = {key: value for key, value in STATEFUL.items() if key not in ("vqa", "run__eval_every_steps")}
    changes |= {"run__save_every_steps": 1, "ppo__iterations": 8}
    assert start(base, tmp_path / "whole", changes, resume=False).wait(timeout=300) == 0
    process = start(base, tmp_path / "killed", changes, resume=False)
    deadline = time.monotonic() + 200
    while not (tmp_path / "killed" / "checkpoint-3").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "killed" / "final").exists()
    assert start(base, tmp_path / "killed", changes, resume=True).wait(timeout=300) == 0
    assert weights(tmp_path / "killed" / "final") == weights(tmp_path / "whole" / "final")
