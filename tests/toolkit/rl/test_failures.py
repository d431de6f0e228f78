"""Memory that does not suffice and disks that are full: a message that helps, and nothing lost."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from toolkit.errors import RunFailed
from toolkit.rl.memory import memory_by_part
from toolkit.rl.trainer import PpoTrainer
from toolkit.runs.memory import ran_out_of_memory

Trainers = Callable[..., PpoTrainer]


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """Every write beyond ``limit`` bytes of a file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("limit", [0, 4096, 60_000])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    make_trainer: Trainers, limit: int
) -> None:
    changes: dict[str, Any] = {"ppo__iterations": 4, "run__save_every_steps": 1, "ppo__critic": "adapter"}
    whole = make_trainer(name="whole", **changes)
    whole.train()
    broken = make_trainer(name="broken", **changes)
    save = broken._save

    def fails_at_two(step: int) -> None:
        if step < 2:
            return save(step)
        with small_files(limit):
            return save(step)

    broken._save = fails_at_two  # type: ignore[method-assign]
    with pytest.raises(RunFailed, match=r"checkpoint-2 could not be written") as caught:
        broken.train()
    assert "free some space" in (caught.value.remedy or "")
    path = broken.run.path
    assert sorted(item.name for item in path.glob("*checkpoint*")) == ["checkpoint-1"]
    broken.run.release()
    resumed = make_trainer(name="broken", resume=True, **changes)
    resumed.train(resume=True)
    first, second = (load_file(run.run.final / "adapter_model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_running_out_of_memory_names_the_parts_and_what_helps(make_trainer: Trainers, tmp_path: Path) -> None:
    file = tmp_path / "greedy.py"
    file.write_text(
        "import torch\ncalls = []\n"
        "def greedy(completions, **columns):\n"
        "    calls.append(1)\n"
        "    if len(calls) > 2:\n        torch.empty(2**50)\n"
        "    return [float(i) for i in range(len(completions))]\n"
    )
    trainer = make_trainer(
        rewards=[{"term": f"{file}:greedy"}], ppo__critic="adapter", run__save_every_steps=1
    )
    with pytest.raises(RunFailed, match="out of memory in iteration 2") as caught:
        trainer.train()
    text = str(caught.value)
    for part in (
        "base",
        "adapter default",
        "adapter ref",
        "adapter value",
        "heads",
        "gradients",
        "optimizer",
    ):
        assert f"  {part} " in text
    remedy = caught.value.remedy or ""
    assert remedy == (
        "try model.gradient_checkpointing=true, ppo.gradient_accumulation=2, rollout.generation_batch_size=32"
    )
    assert (trainer.run.path / "checkpoint-1").is_dir()


def test_parts_add_up_to_the_tensors(make_trainer: Trainers) -> None:
    trainer = make_trainer(ppo__iterations=1, ppo__critic="adapter")
    trainer.train()
    parts = memory_by_part(trainer.engine)
    weights = sum(size for name, size in parts.items() if name not in ("gradients", "optimizer"))
    assert weights == sum(parameter.nbytes for parameter in trainer.engine.module.parameters())
    trained = sum(parameter.nbytes for _, parameter in trainer.engine.module.trained_parameters())
    assert parts["gradients"] == trained
    assert parts["optimizer"] == 2 * trained + 4 * len(trainer.engine.module.trained_parameters())


def test_other_errors_are_not_taken_for_memory(make_trainer: Trainers, tmp_path: Path) -> None:
    assert ran_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not ran_out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.parametrize("updates", [1, 2])
def test_weights_that_broke_down_are_written_nowhere(make_trainer: Trainers, updates: int) -> None:
    """A gradient that is NaN ends the run at once; weights that became so in the very last step reach no file."""
    trainer = make_trainer(
        optimizer__learning_rate=1e20, ppo__iterations=2, ppo__epochs=1, ppo__minibatches=updates,
        run__save_every_steps=1, kl__coefficient=0.0,
    )  # fmt: skip
    with pytest.raises(RunFailed, match=r"not finite|infinite or NaN") as caught:
        trainer.train()
    assert "lower optimizer.learning_rate" in (caught.value.remedy or "")
    for file in trainer.run.path.rglob("*.safetensors"):
        assert all(bool(value.isfinite().all()) for value in load_file(file).values()), file
    assert not trainer.run.final.exists()


def test_a_reward_that_raises_loses_no_iteration(make_trainer: Trainers, tmp_path: Path) -> None:
    file, flag = tmp_path / "odd.py", tmp_path / "flag"
    file.write_text(
        "from pathlib import Path\ncalls = [0]\n"
        "def odd(completions, **columns):\n"
        "    calls[0] += 1\n"
        f"    if calls[0] == 4 and Path({str(flag)!r}).exists():\n"
        "        raise KeyError('nothere')\n"
        "    return [float(len(c[0]['content'])) for c in completions]\n"
    )
    changes: dict[str, Any] = {"rewards": [{"term": f"{file}:odd"}], "ppo__iterations": 4}
    whole = make_trainer(name="whole", **changes)
    whole.train()
    flag.touch()
    broken = make_trainer(name="broken", **changes)
    with pytest.raises(Exception, match="nothere"):  # calibration is the first call: this is in iteration 3
        broken.train()
    assert [item.name for item in broken.run.path.glob("checkpoint-*")] == ["checkpoint-2"]
    broken.run.release()
    flag.unlink()
    resumed = make_trainer(name="broken", resume=True, **changes)
    resumed.train(resume=True)
    first, second = (load_file(run.run.final / "adapter_model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_rows_that_nothing_scores_train_nothing_and_are_counted(
    make_trainer: Trainers, tmp_path: Path
) -> None:
    file = tmp_path / "some.py"
    file.write_text(
        "def some(completions, sample_id, **columns):\n"
        "    return [None if int(i[3:]) % 2 else float(len(c[0]['content'])) for c, i in zip(completions, sample_id)]\n"
    )
    trainer = make_trainer(rewards=[{"term": f"{file}:some"}], rollout__prompts_per_iteration=16)
    trainer.train()
    rollout = trainer.worker.collect(trainer.rows[:8], seed=1)
    output = trainer.appraisal.rewards(rollout, progress=0.0)
    experience = trainer.appraisal.experience(rollout, output, kl_coefficient=0.1)
    odd = [index % 2 == 1 for index in range(8)]
    assert (experience.mask.sum(1) == 0).tolist() == odd
    lines = trainer.run.metrics.read()
    assert all(0.2 < line["reward/unscored_fraction"] < 0.8 for line in lines)
    assert all(line["reward/failed_fraction"] == 0.0 for line in lines)


@pytest.mark.parametrize(("weight", "stops"), [(1.0, True), (0.0, False)])
def test_failures_in_the_calibration_stop_the_run_before_it_trains(
    make_trainer: Trainers, tmp_path: Path, caplog: pytest.LogCaptureFixture, weight: float, stops: bool
) -> None:
    file = tmp_path / "half.py"
    file.write_text(
        "def half(completions, **columns):\n"
        "    return [float('nan') if i % 2 else float(len(c[0]['content'])) for i, c in enumerate(completions)]\n"
    )
    terms = [{"term": f"{file}:half", "weight": weight}, {"term": "length", "options": {"max_tokens": 3}}]
    trainer = make_trainer(rewards=terms, ppo__iterations=1)
    if not stops:
        trainer.train()
        assert "half/caption failed on 50% of the calibration samples; it weighs 0" in caplog.text
        return
    with pytest.raises(
        RunFailed, match="half/caption failed on 50% of the calibration samples, more than guards"
    ):
        trainer.train()
    assert trainer.iteration == 0
