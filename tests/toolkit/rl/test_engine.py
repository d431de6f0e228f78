"""What can be lost silently between a launcher, accelerate and the optimizer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from toolkit.errors import RecipeError, RunFailed
from toolkit.models.roles import role_parameters, roles_of
from toolkit.rl.engine import build_optimizer
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
