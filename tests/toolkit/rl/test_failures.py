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
from toolkit.rl.memory import memory_by_part, ran_out_of_memory
from toolkit.rl.trainer import PpoTrainer

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
