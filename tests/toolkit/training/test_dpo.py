"""DPO: the reference is a frozen copy of the policy, and a killed run goes on exactly."""

import json

import pytest
import torch
from safetensors.torch import load_file

import toolkit.training.dpo as dpo
from toolkit.errors import UsageError
from toolkit.models.roles import role_parameters
from toolkit.runs.directory import RunDirectory

OPTIONS = {"max_steps": 7, "per_device_train_batch_size": 4, "learning_rate": 2e-3}


def moved(vlm):
    """An adapter that is not at its start, as after SFT."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in role_parameters(vlm.model, "default"):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return vlm


def train(vlm, rows, spec, *, resume=False, **options):
    directory = RunDirectory(spec.output_dir)
    directory.path.mkdir(parents=True, exist_ok=True)
    dpo.train_dpo(
        vlm.model,
        vlm.processor,
        rows,
        rows[:4],
        directory=directory,
        run=spec,
        trainer_options={**OPTIONS, **options},
        resume=resume,
    )
    return directory


def lines_of(directory):
    return [json.loads(line) for line in directory.metrics.path.read_text().splitlines()]


@pytest.mark.parametrize("kind", ["lora", "nf4"])
def test_policy_equals_reference_at_the_start_and_the_reference_never_moves(kind, new_vlm, pairs, run_spec):
    vlm = moved(new_vlm(kind))
    start = {name: p.detach().clone() for name, p in role_parameters(vlm.model, "default")}
    directory = train(vlm, pairs, run_spec("run", log_every_steps=1))
    reference = dict(role_parameters(vlm.model, "ref"))
    assert all(torch.equal(reference[name], start[name]) for name in start)
    assert {p.dtype for p in reference.values()} == {torch.float32}
    assert not any(p.requires_grad for p in reference.values())
    policy = dict(role_parameters(vlm.model, "default"))
    assert all(p.requires_grad and p.dtype == torch.float32 for p in policy.values())
    assert any(not torch.equal(policy[name], start[name]) for name in start)
    first = lines_of(directory)[0]
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-6)
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-6)
    final = load_file(str(directory.final / "adapter_model.safetensors"))
    assert not [name for name in final if "ref" in name.split(".")]
    assert not (directory.final / "ref").exists()


@pytest.mark.slow
def test_it_learns_the_preference(new_vlm, pairs, run_spec):
    options = {"max_steps": 40, "per_device_train_batch_size": 9, "learning_rate": 5e-3, "beta": 0.5}
    directory = train(moved(new_vlm("lora")), pairs, run_spec("run", eval_every_steps=40), **options)
    assert lines_of(directory)[-1]["eval_rewards/accuracies"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "nf4"])
def test_killed_and_resumed_equals_uninterrupted(
    kind, new_vlm, pairs, run_spec, monkeypatch, kill_at, killed
):
    whole = train(moved(new_vlm(kind)), pairs, run_spec("whole"))
    with monkeypatch.context() as patch:
        original = dpo.fit

        def fit(trainer, **arguments):
            trainer.add_callback(kill_at(5))
            original(trainer, **arguments)

        patch.setattr(dpo, "fit", fit)
        with pytest.raises(killed):
            train(moved(new_vlm(kind)), pairs, run_spec("cut"))
    cut = train(moved(new_vlm(kind)), pairs, run_spec("cut"), resume=True)
    assert cut.metrics.path.read_text() == whole.metrics.path.read_text()
    expected, found = (load_file(str(run.final / "adapter_model.safetensors")) for run in (whole, cut))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_model_without_adapter_is_refused(new_vlm, pairs, run_spec):
    with pytest.raises(UsageError, match="needs an adapter"):
        train(new_vlm("full"), pairs, run_spec("run"))


def test_losses_of_the_family_pass_through(new_vlm, pairs, run_spec):
    spec = run_spec("run", log_every_steps=1, save_every_steps=None, eval_every_steps=None)
    directory = train(
        moved(new_vlm("lora")),
        pairs,
        spec,
        max_steps=2,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, 0.5],
    )
    assert lines_of(directory)[0]["loss"] > 0.7
