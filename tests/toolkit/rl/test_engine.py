"""What can be lost silently between a launcher, accelerate and the optimizer."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from toolkit.config.blocks import OptimizerSpec
from toolkit.errors import RecipeError, RunFailed
from toolkit.models.roles import role_parameters, roles_of
from toolkit.rl.engine import build_optimizer, learning_rate_scale
from toolkit.rl.policy_value import build_policy_value
from toolkit.rl.trainer import PpoTrainer

Trainers = Callable[..., PpoTrainer]


def test_processes_that_did_not_come_together_are_noticed(
    make_trainer: Trainers, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_trainer()  # a world of one process exists already
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunFailed, match="started 2 processes, but 1 came together"):
        make_trainer(name="second")


def test_half_precision_of_the_launcher_is_refused(make_trainer: Trainers) -> None:
    trainer = make_trainer()
    trainer.engine.module.value_head.to(torch.bfloat16)
    with pytest.raises(RunFailed, match="must stay float32"):
        trainer.engine._check_prepared()


@pytest.mark.parametrize(("critic", "groups"), [("shared", 2), ("adapter", 3)])
def test_groups_hold_every_trainable_parameter_once(make_trainer: Trainers, critic: str, groups: int) -> None:
    trainer = make_trainer(ppo__critic=critic, optimizer__head_learning_rate=0.25)
    module = trainer.engine.module
    optimizer = build_optimizer(module, trainer.recipe.optimizer)
    assert len(optimizer.param_groups) == groups
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3] * (groups - 1) + [0.25]
    held = [id(item) for group in optimizer.param_groups for item in group["params"]]
    assert sorted(held) == sorted(id(item) for item in module.parameters() if item.requires_grad)


def test_learning_rates_and_clipping_reach_the_optimizer(make_trainer: Trainers) -> None:
    trainer = make_trainer(optimizer__max_grad_norm=1e-4)
    head = trainer.engine.module.value_head.linear.bias
    norm = trainer.engine.step([lambda: head.sum() * 3.0])
    assert norm == pytest.approx(3.0)
    assert head.grad is not None
    assert float(head.grad) == pytest.approx(1e-4, rel=1e-3)
    assert float(head.detach()) == pytest.approx(-trainer.recipe.optimizer.head_learning_rate, rel=1e-3)


def test_schedules_are_functions_of_the_iteration() -> None:
    def scales(**spec: object) -> list[float]:
        return [learning_rate_scale(OptimizerSpec.model_validate(spec), i, 8) for i in range(8)]

    assert scales() == [1.0] * 8
    assert scales(schedule="linear") == pytest.approx([1 - i / 8 for i in range(8)])
    assert scales(schedule="linear", warmup_iterations=4)[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert scales(schedule="linear", warmup_iterations=4)[-1] == pytest.approx(0.25)
    cosine = scales(schedule="cosine")
    assert (cosine[0], cosine[4]) == pytest.approx((1.0, 0.5))
    assert cosine == sorted(cosine, reverse=True)


@pytest.mark.parametrize("warming", [0, 2])
def test_all_groups_anneal_and_the_policy_is_held_in_the_critics_warm_up(
    make_trainer: Trainers, warming: int
) -> None:
    trainer = make_trainer(
        optimizer__schedule="linear", ppo__iterations=4, ppo__critic_warmup_iterations=warming,
        optimizer__learning_rate=1e-3, optimizer__head_learning_rate=4e-3,
    )  # fmt: skip
    seen = []
    step = trainer.engine.step
    trainer.engine.step = lambda losses: (  # type: ignore[method-assign]
        seen.append(tuple(group["lr"] for group in trainer.engine.optimizer.param_groups)) or step(losses)
    )
    trainer.train()
    by_iteration = list(dict.fromkeys(seen))
    scales = (1.0, 0.75, 0.5, 0.25)
    assert [head for _, head in by_iteration] == pytest.approx([4e-3 * scale for scale in scales])
    expected = [0.0 if index < warming else 1e-3 * scale for index, scale in enumerate(scales)]
    assert [policy for policy, _ in by_iteration] == pytest.approx(expected)
    lines = [json.loads(line) for line in (trainer.run.path / "metrics.jsonl").read_text().splitlines()]
    logged = [line["optimizer/learning_rate"] for line in lines if "optimizer/learning_rate" in line]
    assert logged == pytest.approx(expected)


def test_one_base_holds_all_roles(make_trainer: Trainers) -> None:
    """Adding reference and critic adds their adapters and the head, nothing else."""
    trainer = make_trainer(ppo__critic="adapter")
    model = trainer.vlm.model
    assert roles_of(model) == ["default", "ref", "value"]
    adapter = sum(item.numel() for _, item in role_parameters(model, "default"))
    total = len({item.data_ptr() for item in trainer.engine.module.parameters()})
    assert total == len(list(trainer.engine.module.parameters()))
    roles = sum(item.numel() for name in roles_of(model) for _, item in role_parameters(model, name))
    assert roles == 3 * adapter


def test_a_model_without_an_adapter_is_refused(make_trainer: Trainers) -> None:
    vlm = make_trainer().vlm
    bare = type(vlm)(vlm.model.get_base_model(), vlm.processor, vlm.family, vlm.device, vlm.base_id)
    with pytest.raises(RecipeError, match="found a model without one"):
        build_policy_value(bare, critic="shared", seed=0)
