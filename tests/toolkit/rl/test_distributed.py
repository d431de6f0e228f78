"""Two processes on the CPU: DDP and DeepSpeed give the losses and the adapter of one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor

from .conftest import load_policy

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

ROOT = Path(__file__).parents[3]
RUN = Path(__file__).with_name("run_ppo.py")
CHANGES: dict[str, Any] = {"rollout__prompts_per_iteration": 16, "ppo__entropy_weight": 0.01}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def launch(
    launcher: str, arguments: dict[str, Any], *, seconds: float = 400
) -> subprocess.CompletedProcess[str]:
    """Run on one process, or on two through accelerate."""
    command = [sys.executable]
    if launcher != "none":
        config = ROOT / "recipes" / "accelerate" / "cpu" / f"{launcher}.yaml"
        command += ["-m", "accelerate.commands.launch", "--config_file", str(config)]
        command += ["--num_processes", "2", "--main_process_port", str(free_port())]
        arguments = {**arguments, "world": 2}
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(RUN), json.dumps(arguments)],
        env=environment, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip


def eight_steps(
    base: Path, out: Path, launcher: str, **arguments: Any
) -> tuple[list[Any], dict[str, torch.Tensor]]:
    """Losses and adapter after two passes of four optimizer steps each over one batch."""
    done = launch(launcher, {"base": str(base), "out": str(out), "mode": "steps", **arguments})
    assert (out / "final").is_dir(), done.stderr[-4000:]
    return json.loads((out / "steps.json").read_text()), load_file(
        out / "final" / "adapter_model.safetensors"
    )


@pytest.fixture(scope="module", params=["shared", "adapter"])
def arguments(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A 4-bit run with either critic."""
    return {"changes": {**CHANGES, "ppo__critic": request.param}, "bits": 4}


@pytest.fixture(scope="module")
def one_process(
    base: Path, tmp_path_factory: pytest.TempPathFactory, arguments: dict[str, Any]
) -> tuple[list[Any], dict[str, torch.Tensor]]:
    """What one process makes of the batch."""
    return eight_steps(base, tmp_path_factory.mktemp("one") / "run", "none", **arguments)


def assert_same(
    one: tuple[list[Any], dict[str, torch.Tensor]], two: tuple[list[Any], dict[str, torch.Tensor]]
) -> None:
    """Losses, gradient norms and adapters agree to 1e-4."""
    for first, second in zip(one[0], two[0], strict=True):
        assert second["grad_norms"] == pytest.approx(first["grad_norms"], rel=1e-3)
        for name in ("policy/loss", "value/loss", "policy/entropy_nats", "policy/kl_to_behaviour_nats"):
            assert second[name] == pytest.approx(first[name], abs=1e-4), name
    for name, value in one[1].items():
        assert torch.allclose(value, two[1][name], atol=1e-4), name


@pytest.mark.parametrize("launcher", ["ddp", "zero2", "zero3"])
def test_two_processes_equal_one(
    base: Path,
    tmp_path: Path,
    arguments: dict[str, Any],
    one_process: tuple[list[Any], dict[str, torch.Tensor]],
    launcher: str,
) -> None:
    assert_same(one_process, eight_steps(base, tmp_path / "two", launcher, **arguments))


@pytest.fixture(scope="module")
def one_by_weights(
    base: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int | None, tuple[list[Any], dict[str, torch.Tensor]]]:
    """One process with a shared critic, on 4-bit and on whole weights."""
    folder = tmp_path_factory.mktemp("weights")
    return {
        bits: eight_steps(base, folder / str(bits), "none", changes=CHANGES, bits=bits) for bits in (4, None)
    }


@pytest.mark.parametrize(
    ("launcher", "bits"),
    [
        ("zero1", 4),
        ("zero2-offload", 4),
        ("ddp", None),
        ("zero1", None),
        ("zero2", None),
        ("zero2-offload", None),
        ("zero3", None),
    ],
)
def test_the_rest_of_the_matrix_equals_one_process(
    base: Path,
    tmp_path: Path,
    one_by_weights: dict[int | None, tuple[list[Any], dict[str, torch.Tensor]]],
    launcher: str,
    bits: int | None,
) -> None:
    two = eight_steps(base, tmp_path / "two", launcher, changes=CHANGES, bits=bits)
    assert_same(one_by_weights[bits], two)


@pytest.mark.parametrize("launcher", ["ddp", "zero2", "zero3"])
def test_two_processes_with_activation_checkpointing_equal_one_without(
    base: Path,
    tmp_path: Path,
    arguments: dict[str, Any],
    one_process: tuple[list[Any], dict[str, torch.Tensor]],
    launcher: str,
) -> None:
    """The recompute runs under the role of its forward on every process, whichever role is active by then."""
    weights = {"checkpointing": True}
    assert_same(one_process, eight_steps(base, tmp_path / "two", launcher, weights=weights, **arguments))


# Rounding of log-probabilities in bfloat16 grows with every step; a slow policy keeps both runs on one path.
IN_BF16 = {**CHANGES, "optimizer__learning_rate": 5e-5}


def weights_in_bf16(launcher: str) -> dict[str, str]:
    """As the recipe must say it: ZeRO-3 splits weights of one dtype."""
    return {"dtype": "bfloat16", "storage_dtype": "bfloat16" if launcher == "zero3" else "uint8"}


@pytest.fixture(scope="module")
def one_in_bf16(
    base: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int | None, tuple[list[Any], dict[str, Tensor]]]:
    """One process on a bfloat16 base, 4-bit and whole."""
    folder, weights = tmp_path_factory.mktemp("bf16"), weights_in_bf16("none")
    return {
        bits: eight_steps(base, folder / str(bits), "none", changes=IN_BF16, bits=bits, weights=weights)
        for bits in (4, None)
    }


@pytest.mark.parametrize(
    ("launcher", "bits"),
    [
        (launcher, bits)
        for bits in (4, None)
        for launcher in ("ddp", "zero1", "zero2", "zero2-offload", "zero3")
    ],
)
def test_bf16_on_two_processes_equals_one_to_a_percent(
    base: Path,
    tmp_path: Path,
    one_in_bf16: dict[int | None, tuple[list[Any], dict[str, Tensor]]],
    launcher: str,
    bits: int | None,
) -> None:
    """Losses to 1 %; the policy's, which is near 0, to 1 % of the advantages' deviation of 1."""
    weights = weights_in_bf16(launcher)
    two = eight_steps(base, tmp_path / "two", launcher, changes=IN_BF16, bits=bits, weights=weights)
    one = one_in_bf16[bits]
    for first, second in zip(one[0], two[0], strict=True):
        for name in ("value/loss", "policy/entropy_nats"):
            assert second[name] == pytest.approx(first[name], rel=0.01), name
        assert second["policy/loss"] == pytest.approx(first["policy/loss"], abs=0.01)
    assert two[0][0]["grad_norms"][0] == pytest.approx(one[0][0]["grad_norms"][0], rel=0.01)
    policy = load_policy(base, bits=bits, **weights)
    start = flat(get_peft_model_state_dict(policy.model))
    ours, theirs = flat(one[1]), flat(two[1])
    assert (theirs - ours).norm() < 0.01 * ours.norm()
    assert (theirs - ours).norm() < 0.2 * (ours - start).norm() > 0  # both went the same way


def flat(adapter: dict[str, Tensor]) -> Tensor:
    """All weights as one vector."""
    return torch.cat([adapter[name].float().flatten() for name in sorted(adapter)])


@pytest.mark.parametrize("launcher", ["ddp", "zero3"])
def test_two_processes_sample_and_learn_what_one_does(base: Path, tmp_path: Path, launcher: str) -> None:
    """With draws of their own for every sample a whole run does not depend on the number of processes."""
    changes = {
        **CHANGES, "ppo__iterations": 3, "rollout__draws": "row", "rollout__samples_per_prompt": 2,
        "rollout__prompts_per_iteration": 8, "run__save_every_steps": 1,
    }  # fmt: skip
    for name, with_what in (("one", "none"), ("two", launcher)):
        done = launch(with_what, {"base": str(base), "out": str(tmp_path / name), "changes": changes})
        assert (tmp_path / name / "final").is_dir(), done.stderr[-4000:]
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    for first, second in zip(one, two, strict=True):
        for name in ("reward/total", "rollout/tokens", "kl/k1_nats", "policy/loss", "value/loss"):
            assert second[name] == pytest.approx(first[name], abs=1e-4), name
    texts = [
        [json.loads(line)["completion"] for line in path.read_text().splitlines()]
        for path in (tmp_path / name / "samples" / "rollouts-000003.jsonl" for name in ("one", "two"))
    ]
    assert texts[0][: len(texts[1])] == texts[1]


@pytest.mark.parametrize("launcher", ["zero2"])
def test_a_whole_run_broken_off_by_a_signal_to_one_process_resumes(
    base: Path, tmp_path: Path, launcher: str
) -> None:
    """The signal comes after the first minibatch of the third iteration; both processes agree on what to do."""
    changes = {**CHANGES, "ppo__iterations": 3, "run__save_every_steps": 1, "ppo__gradient_accumulation": 2}
    whole = {"base": str(base), "out": str(tmp_path / "whole"), "changes": changes, "bits": 4}
    broken = {**whole, "out": str(tmp_path / "broken")}
    done = launch(launcher, whole)
    final = Path("final") / "adapter_model.safetensors"
    assert (tmp_path / "whole" / final).exists(), done.stderr[-4000:]
    done = launch(launcher, {**broken, "stop": [3, 1]})
    assert "in iteration 3 of 3, after 1 of its minibatches" in done.stderr
    assert not (tmp_path / "broken" / final).exists()
    assert (tmp_path / "broken" / "checkpoint-2" / "unfinished.pt").is_file()
    done = launch(launcher, {**broken, "resume": True})
    assert (tmp_path / "broken" / final).exists(), done.stderr[-4000:]
    expected, resumed = (load_file(tmp_path / name / final) for name in ("whole", "broken"))
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())
    lines = (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_processes_share_their_scales_and_their_names(base: Path, tmp_path: Path) -> None:
    """A judge that answers each process otherwise, and a task that is not calibrated and not on all."""
    judge = tmp_path / "judge.py"
    judge.write_text(
        "import os\n"
        "def judge(completions, **columns):\n"
        "    own = float(os.environ['RANK'])\n"
        "    return [len(c[0]['content']) * (1.0 + own) + own for c in completions]\n"
    )
    terms = [
        {"term": f"{judge}:judge", "normalise": "frozen", "tasks": ["caption"]},
        {"term": "length", "options": {"max_tokens": 3}, "normalise": "running"},
    ]
    changes = {**CHANGES, "rollout__prompts_per_iteration": 2, "ppo__minibatches": 1, "ppo__iterations": 6}
    out = tmp_path / "run"
    done = launch(
        "ddp", {"base": str(base), "out": str(out), "vqa": True, "changes": {**changes, "rewards": terms}}
    )
    assert (out / "final").is_dir(), done.stderr[-4000:]
    first, second = (json.loads((out / f"calibration-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert list(first) == ["judge caption", "length caption"]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    assert all("reward/total/calibrated" in line for line in lines)
