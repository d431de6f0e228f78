"""The whole loop on tiny random models."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

from toolkit.models.encoding import collate
from toolkit.models.logprobs import completion_logprobs
from toolkit.models.roles import role_parameters
from toolkit.rl.prompt_order import PromptOrder
from toolkit.rl.rollout import PromptCache, Rollout, RolloutWorker
from toolkit.rl.trainer import PpoTrainer

from .conftest import FAMILIES, make_rows

Trainers = Callable[..., PpoTrainer]


def test_a_run_learns_its_reward_and_writes_what_the_next_stage_reads(
    make_trainer: Trainers, letters: list[dict[str, object]]
) -> None:
    trainer = make_trainer(
        rewards=letters,
        ppo__iterations=8,
        rollout__prompts_per_iteration=32,
        run__save_every_steps=4,
        optimizer__learning_rate=5e-3,
    )
    reference = [value.clone() for _, value in role_parameters(trainer.vlm.model, "ref")]
    trainer.train()
    lines = trainer.run.metrics.read()
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert lines[-1]["reward/letters"] > 1.5 * lines[0]["reward/letters"]
    assert lines[0]["kl/k1_nats"] == 0.0
    assert lines[-1]["kl/k3_nats"] > 0.0
    for before, (_, after) in zip(reference, role_parameters(trainer.vlm.model, "ref"), strict=True):
        assert torch.equal(before, after)
    assert sorted(path.name for path in trainer.run.path.glob("checkpoint-*")) == ["checkpoint-4"]
    names = {path.name for path in trainer.run.final.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "processor_config.json"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)
    samples = (trainer.run.samples / "rollouts-000008.jsonl").read_text().splitlines()
    assert {"completion", "score", "parts", "kl_nats"} <= json.loads(samples[0]).keys()
    page = (trainer.run.samples / "rollouts.html").read_text(encoding="utf-8")
    assert "Iteration 8:" in page
    assert page.count("data:image/") == page.count("<article>") == len(samples)


def test_terms_without_a_model_are_scored_while_the_policy_computes(
    make_trainer: Trainers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function in the background ends only once phase 3 has begun; one in the main thread would wait for ever."""
    file = tmp_path / "slow.py"
    file.write_text(
        "import threading\nscoring = threading.Event()\nthreads = set()\n"
        "def letters(completions, **columns):\n"
        "    threads.add(threading.current_thread().name)\n"
        "    if threading.current_thread() is not threading.main_thread():\n"
        "        assert scoring.wait(timeout=60)\n"
        "    return [float(c[0]['content'].count('e')) for c in completions]\n"
        "def here(completions, **columns):\n"
        "    assert threading.current_thread() is threading.main_thread()\n"
        "    return [0.5 * len(c[0]['content']) for c in completions]\n"
        "letters.background = True\n"
    )
    terms = [{"term": f"{file}:letters"}, {"term": f"{file}:here"}]
    trainer = make_trainer(rewards=terms, ppo__iterations=2)
    score, module = RolloutWorker.score, vars(trainer.reward.terms[0].reward)["function"].__globals__

    def scored(*arguments: Any) -> Rollout:
        module["scoring"].set()
        return score(*arguments)

    monkeypatch.setattr(RolloutWorker, "score", scored)
    trainer.train()
    assert any(name.startswith("reward") for name in module["threads"])
    assert [line["step"] for line in trainer.run.metrics.read()] == [1, 2]


@pytest.mark.parametrize("family", FAMILIES)
def test_final_loads_with_plain_peft_and_gives_the_same_logprobs(make_trainer: Trainers, family: str) -> None:
    trainer = make_trainer(family=family, ppo__iterations=1)
    trainer.train()
    vlm = trainer.vlm
    row = trainer.rows[0]
    rollout = trainer.worker.collect([row], seed=3)
    batch = collate(vlm, rollout.prompts, [rollout.completions[0].token_ids])
    ours, _ = completion_logprobs(vlm.model, batch)
    plain = AutoModelForImageTextToText.from_pretrained(vlm.base_id)
    plain = PeftModel.from_pretrained(plain, trainer.run.final).eval()
    AutoProcessor.from_pretrained(trainer.run.final)
    theirs, _ = completion_logprobs(plain, batch)
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_groups_of_samples_share_a_prompt(make_trainer: Trainers, letters: list[dict[str, object]]) -> None:
    trainer = make_trainer(
        rewards=[{**letters[0], "normalise": "group"}], rollout__samples_per_prompt=4, ppo__iterations=2
    )
    rollout = trainer.worker.collect(trainer.rows[:2], seed=0)
    assert [row.sample_id for row in rollout.rows] == ["row0"] * 4 + ["row1"] * 4
    assert len({item.text for item in rollout.completions}) > 2
    trainer.train()
    assert abs(trainer.run.metrics.read()[-1]["reward/letters/normalised"]) < 1e-9


@pytest.mark.parametrize(
    "changes",
    [
        {"ppo__critic": "adapter"},
        {"bits": 4},
        {"bits": 4, "checkpointing": True, "ppo__critic": "adapter"},
        {"bits": 4, "dtype": "bfloat16", "optimizer__learning_rate": 1e-4},
        {"vqa": True, "rewards": [{"term": "vqa_accuracy"}, {"term": "bleu", "options": {"order": 1}}]},
        {"ppo__critic_warmup_iterations": 2, "optimizer__weight_decay": 0.1},
        {"kl__controller": "adaptive", "kl__stop_epochs_above_nats": 1e-9, "ppo__gradient_accumulation": 2},
        {"optimizer__name": "adamw_8bit", "optimizer__max_grad_norm": None, "ppo__entropy_weight": 0.01},
        {"rollout__temperature": 0.7, "ppo__value_clip": None, "ppo__whiten_advantages": False},
    ],
    ids=lambda changes: "+".join(str(key) for key in changes),
)
def test_variants_run_and_log_finite_numbers(make_trainer: Trainers, changes: dict[str, object]) -> None:
    trainer = make_trainer(**{"ppo__iterations": 2, **changes})
    before = [value.clone() for _, value in role_parameters(trainer.vlm.model, "default")]
    trainer.train()
    for line in trainer.run.metrics.read():
        missing = {name for name, value in line.items() if value is None}
        assert missing <= {"guard/vision_gap_nats"}, line
    moved = any(
        not torch.equal(a, b)
        for a, (_, b) in zip(before, role_parameters(trainer.vlm.model, "default"), strict=True)
    )
    assert moved == ("ppo__critic_warmup_iterations" not in changes)


def test_trackers_of_the_recipe_get_the_numbers(make_trainer: Trainers) -> None:
    trainer = make_trainer(ppo__iterations=1, run__report_to=["tensorboard"])
    trainer.train()
    (file,) = (trainer.run.path / "tensorboard").glob("events.*")
    data = file.read_bytes()
    assert b"samples/text_summary" in data
    assert b"PNG" in data


def test_rows_of_two_files_with_one_sample_id_keep_their_own_picture(make_trainer: Trainers) -> None:
    trainer = make_trainer()
    first, second = trainer.rows[:2]
    second = dataclasses.replace(second, sample_id=first.sample_id)
    prompts = trainer.worker.cache.encode([first, second, first])
    pixels = [prompt.image_inputs["pixel_values"] for prompt in prompts]
    assert not torch.equal(pixels[0], pixels[1])
    assert prompts[0] is prompts[2]


def test_the_prompt_cache_forgets_the_oldest(make_trainer: Trainers) -> None:
    trainer = make_trainer()
    cache = PromptCache(trainer.vlm, max_bytes=1)
    first = cache.encode(trainer.rows[:1])[0]
    cache.encode(trainer.rows[1:2])
    again = cache.encode(trainer.rows[:1])[0]
    assert first is not again
    assert torch.equal(first.image_inputs["pixel_values"], again.image_inputs["pixel_values"])


def test_prompts_are_a_function_of_seed_and_iteration() -> None:
    rows = make_rows(10)
    order = PromptOrder(rows, 4, seed=3)
    stream = [row.sample_id for iteration in range(5) for row in order.share(iteration)]
    assert sorted(stream[:10]) == sorted(row.sample_id for row in rows)
    assert sorted(stream[10:]) == sorted(row.sample_id for row in rows)
    assert stream[:10] != stream[10:]
    halves = [
        row.sample_id
        for rank in range(2)
        for row in PromptOrder(rows, 4, seed=3).share(3, rank=rank, world=2)
    ]
    assert halves == stream[12:16]
    assert [row.sample_id for row in PromptOrder(rows, 4, seed=4).share(0)] != stream[:4]
