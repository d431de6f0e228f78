"""The same against vLLM itself, where ``VLM_RLHF_VLLM`` names its executable (any build, a CPU's too)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from toolkit.models.structure import inner_model
from toolkit.rl.sampler_agreement import mismatch
from toolkit.rl.trainer import PpoTrainer
from toolkit.rl.vllm_sampler import SamplerFailed

from .conftest import load_policy
from .test_distributed import launch

VLLM = os.environ.get("VLM_RLHF_VLLM")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not VLLM, reason="VLM_RLHF_VLLM is not set to the path of a vllm executable"),
]
Build = Callable[..., PpoTrainer]
LORA = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
SWITCHES = (
    *("--enable-scale-out", "--enable-lora", "--max-lora-rank", "8", "--dtype", "float32"),
    *("--generation-config", "vllm", "--logprobs-mode", "processed_logprobs"),
    *("--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "16", "--host", "127.0.0.1"),
)


def served_copy(base: Path, folder: Path) -> Path:
    """The base as vLLM reads it: with SigLIP's weights one level deeper."""
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    deeper = {name.replace("vision_tower.", "vision_tower.vision_model."): w for name, w in weights.items()}
    save_file(deeper, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def served(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A server on a copy of the base, and what a recipe says to use it."""
    folder = tmp_path_factory.mktemp("served")
    with serving(served_copy(base, folder / "base"), folder) as server:
        yield {**server, "base": base}


@contextlib.contextmanager
def serving(copy: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """A server on ``copy``, its log in ``folder``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(Path(str(VLLM)).parent), os.environ["PATH"]])
    memory = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "PATH": path}
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    log = folder / "log.txt"
    with log.open("w") as sink:
        command = [str(VLLM), "serve", str(copy), *SWITCHES, "--port", str(port)]
        process = subprocess.Popen(
            command,
            env={**environment, **LORA, **memory},
            stdout=sink,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        _wait(process, port, log)
        vllm = {"url": f"http://127.0.0.1:{port}", "served_model": str(copy), "mismatch_max_nats": 0.01}
        yield {"vllm": vllm}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 600.0
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5.0).close()
        except (OSError, urllib.error.URLError):
            time.sleep(1.0)
        else:
            return
    pytest.fail(f"vllm did not start:\n{log.read_text()[-3000:]}")


def through(served: dict[str, Any], **rollout: Any) -> dict[str, Any]:
    """Changes of a recipe that samples there."""
    block = {"prompts_per_iteration": 8, "max_new_tokens": 8, "backend": "vllm", "vllm": served["vllm"]}
    return {
        "model": {"id": str(served["base"])},
        "rollout": {**block, **rollout},
    }


def logged(trainer: PpoTrainer, name: str) -> list[float]:
    lines = (trainer.run.path / "metrics.jsonl").read_text().splitlines()
    return [row[name] for row in map(json.loads, lines) if name in row]


def test_a_run_learns_from_what_vllm_samples(
    served: dict[str, Any], make_trainer: Build, letters: list[dict[str, object]]
) -> None:
    more = {"rewards": letters, "ppo__iterations": 6, "optimizer__learning_rate": 5e-3}
    trainer = make_trainer(**more, **through(served, prompts_per_iteration=16))
    trainer.train()
    found, reward = logged(trainer, "rollout/vllm_mismatch_nats"), logged(trainer, "reward/letters")
    # What is left is the probability of image placeholders, which the sampler takes away and scoring does not.
    assert len(found) == 6
    assert max(found) < 5e-3
    assert sum(reward[-2:]) > 1.2 * sum(reward[:2])
    assert not (trainer.run.path / "vllm-adapters").exists()


@pytest.mark.parametrize("draws", ["batch", "row"])
def test_other_pictures_and_other_seeds_give_other_completions(
    served: dict[str, Any], make_trainer: Build, draws: str
) -> None:
    trainer = make_trainer(**through(served, temperature=0.7, draws=draws))
    rows, own = trainer.rows[:6], list(range(40, 52)) if draws == "row" else None
    with trainer.worker as worker:
        _, first = worker.sample(rows, seed=5, samples=2, row_seeds=own)
        _, again = worker.sample(rows, seed=5, samples=2, row_seeds=own)
        _, other = worker.sample(rows, seed=6, samples=2, row_seeds=own and [seed + 90 for seed in own])
        swapped = [
            replace(row, images=rows[(place + 1) % len(rows)].images) for place, row in enumerate(rows)
        ]
        _, blind = worker.sample(swapped, seed=5, samples=2, row_seeds=own)
        prompts = [prompt for prompt in worker.encoded(rows) for _ in range(2)]
        rollout = worker.score([row for row in rows for _ in range(2)], prompts, first)
    texts = [item.token_ids.tolist() for item in first]
    assert texts == [item.token_ids.tolist() for item in again]
    assert texts != [item.token_ids.tolist() for item in other]
    first_logprobs = [float(item.logprobs[0]) for item in first if item.logprobs is not None]
    blind_logprobs = [float(item.logprobs[0]) for item in blind if item.logprobs is not None]
    assert len(first_logprobs) == len(blind_logprobs) == 12
    moved = [abs(a - b) for a, b in zip(first_logprobs, blind_logprobs, strict=True)]
    assert max(moved) > 1e-3
    total, tokens = mismatch(rollout) or (9.0, 1.0)
    assert total / tokens < 5e-3


@pytest.mark.distributed
@pytest.mark.parametrize("launcher", ["ddp", "zero3"])
def test_two_processes_train_on_what_one_server_samples(
    served: dict[str, Any], tmp_path: Path, launcher: str
) -> None:
    """The first process alone writes and loads the adapter; each sends its own share of the prompts."""
    changes = {
        **through(served, prompts_per_iteration=16, samples_per_prompt=2, draws="row"),
        "optimizer__learning_rate": 5e-3,
    }
    done = launch(launcher, {"base": str(served["base"]), "out": str(tmp_path / "run"), "changes": changes})
    assert (tmp_path / "run" / "final").is_dir(), done.stderr[-4000:]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    assert max(line["rollout/vllm_mismatch_nats"] for line in lines) < 5e-3
    assert not (tmp_path / "run" / "vllm-adapters").exists()


def test_a_four_bit_policy_trains_on_what_its_dequantised_base_samples(
    base: Path, make_trainer: Build, tmp_path: Path
) -> None:
    """Where vLLM has no 4-bit kernels it can serve the very weights that NF4 stands for."""
    copy = served_copy(dequantised(base, tmp_path / "plain"), tmp_path / "served")
    with serving(copy, tmp_path) as server:
        trainer = make_trainer(bits=4, optimizer__learning_rate=5e-3, **through({**server, "base": base}))
        trainer.train()
    found = logged(trainer, "rollout/vllm_mismatch_nats")
    assert len(found) == 3
    assert max(found) < 5e-3


def dequantised(base: Path, folder: Path) -> Path:
    """The base with every weight that a 4-bit policy quantises, as that policy reads it."""
    plain = AutoModelForImageTextToText.from_pretrained(base)
    quantised = 0
    with torch.no_grad():
        for name, module in inner_model(load_policy(base, bits=4).model).named_modules():
            if isinstance(module, Linear4bit):
                weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
                plain.get_submodule(name.removesuffix(".base_layer")).weight.copy_(weight)
                quantised += 1
    assert quantised > 10
    shutil.copytree(base, folder)
    plain.save_pretrained(folder)
    return folder


def test_a_stale_adapter_is_caught(served: dict[str, Any], make_trainer: Build) -> None:
    trainer = make_trainer(optimizer__learning_rate=2e-2, **through(served))
    sampler = trainer.worker.sampler
    assert sampler is not None
    publish, names = sampler._publish, []

    def once() -> str:
        """The first adapter for ever, as a server would that loads no other."""
        names.append(names[0] if names else publish())
        return names[0]

    sampler._publish = once  # type: ignore[method-assign]
    with pytest.raises(SamplerFailed, match="nats a token from ours"):
        trainer.train()
    assert trainer.iteration == 1
    assert (trainer.run.path / "checkpoint-1").is_dir()
