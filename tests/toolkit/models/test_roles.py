"""Roles: the switch and nothing but the switch, through nesting, exceptions and activation checkpointing."""

from __future__ import annotations

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from toolkit.errors import RunFailed
from toolkit.models.encoding import collate
from toolkit.models.loading import enable_gradient_checkpointing
from toolkit.models.logprobs import completion_logprobs, score_completions
from toolkit.models.roles import active_role, add_role, role, role_parameters, roles_of, set_trainable

from .conftest import randomise, samples


def trainable_names(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def scores(vlm, name):
    prompts, completions = samples(vlm)
    with role(vlm.model, name):
        return completion_logprobs(vlm.model, collate(vlm, prompts, completions))[0]


def test_contract_with_peft(policy):
    layers = [module for module in policy.model.modules() if isinstance(module, BaseTunerLayer)]
    assert layers
    assert all(layer._active_adapter in ("default", ["default"]) for layer in layers)
    add_role(policy.model, "other", copy_from="default")
    randomise(policy, "other", seed=2)
    before = scores(policy, "default")
    for layer in layers:
        layer._active_adapter = ["other"]
    assert active_role(policy.model) == "other"
    torch.testing.assert_close(scores(policy, active_role(policy.model)), scores(policy, "other"))
    assert not torch.equal(scores(policy, "other"), before)


def test_reference_is_a_copy_so_that_kl_starts_at_zero(trainable):
    add_role(trainable.model, "ref", copy_from="default")
    assert torch.equal(scores(trainable, "default"), scores(trainable, "ref"))
    assert not torch.allclose(scores(trainable, "default"), scores(trainable, None), atol=1e-4)


def test_new_role_without_source_changes_nothing(policy):
    add_role(policy.model, "value")
    torch.testing.assert_close(scores(policy, "value"), scores(policy, None))


def nest_and_fail(model):
    with role(model, "ref"):
        with role(model, None):
            assert active_role(model) is None
        with role(model, "value"):
            assert active_role(model) == "value"
        assert active_role(model) == "ref"
        raise ValueError("inside")


def test_switches_nest_and_survive_exceptions_without_touching_what_trains(trainable):
    add_role(trainable.model, "ref", copy_from="default")
    add_role(trainable.model, "value")
    set_trainable(trainable.model, ["default", "value"])
    declared = trainable_names(trainable.model)
    assert {name.split(".")[-2] for name in declared} == {"default", "value"}
    with pytest.raises(ValueError, match="inside"):
        nest_and_fail(trainable.model)
    assert active_role(trainable.model) == "default"
    assert trainable_names(trainable.model) == declared


def test_adding_a_role_leaves_the_declaration_and_the_active_role(policy):
    set_trainable(policy.model, ["default"])
    declared = trainable_names(policy.model)
    with role(policy.model, None):
        add_role(policy.model, "ref", copy_from="default")
        assert active_role(policy.model) is None
    assert trainable_names(policy.model) == declared
    assert declared
    assert active_role(policy.model) == "default"
    assert roles_of(policy.model) == ["default", "ref"]


def test_mistakes_are_named(policy, vlm):
    with pytest.raises(RunFailed, match="no role 'valeu'"), role(policy.model, "valeu"):
        pass
    with pytest.raises(RunFailed, match="cannot add role"):
        add_role(policy.model, "default")
    with pytest.raises(RunFailed, match="no role critic"):
        set_trainable(policy.model, ["critic"])
    with pytest.raises(RunFailed, match="adapters"), role(vlm.model, "default"):
        pass


def gradients(vlm):
    """One loss over two roles, one backward, while yet another role is active."""
    prompts, completions = samples(vlm)
    batch = collate(vlm, prompts, completions)
    loss = torch.zeros(())
    for name, weight in (("default", 1.0), ("value", -0.7)):
        with role(vlm.model, name):
            scored = score_completions(vlm.model, batch)
            loss = loss + weight * scored.logprobs.sum() + scored.hidden.square().mean()
    vlm.model.zero_grad()
    with role(vlm.model, "ref"):
        loss.backward()
    return {
        name: torch.cat([parameter.grad.flatten() for _, parameter in role_parameters(vlm.model, name)])
        for name in ("default", "value")
    }


def test_gradients_with_checkpointing_equal_those_without(trainable):
    add_role(trainable.model, "ref", copy_from="default")
    add_role(trainable.model, "value")
    randomise(trainable, "value", seed=3)
    set_trainable(trainable.model, ["default", "value"])
    trainable.model.train()
    plain = gradients(trainable)
    enable_gradient_checkpointing(trainable.model)
    recomputed = gradients(trainable)
    for name, expected in plain.items():
        assert expected.abs().max() > 0
        cosine = torch.nn.functional.cosine_similarity(expected, recomputed[name], dim=0)
        assert cosine > 0.9999, name
    assert all(parameter.grad is None for _, parameter in role_parameters(trainable.model, "ref"))
