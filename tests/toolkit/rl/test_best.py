"""The best held-out policy is kept, survives a resume, and is what ``final/`` holds where the recipe says so."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from toolkit.errors import Interrupted, RecipeError
from toolkit.models.loading import LoadedVlm
from toolkit.rl.best import BestPolicy
from toolkit.rl.trainer import PpoTrainer

from .conftest import stop_in

Trainers = Callable[..., PpoTrainer]


def scores(values: Sequence[float]) -> Callable[[LoadedVlm], dict[str, float]]:
    """An evaluation that gives these scores one after the other."""
    left = list(values)
    return lambda _: {"score": left.pop(0), "other": -1.0}


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def equal(first: Path, second: Path) -> bool:
    one, two = adapter(first), adapter(second)
    return all(torch.equal(value, two[name]) for name, value in one.items())


CHANGES = {
    "ppo__iterations": 3,
    "run__eval_every_steps": 1,
    "run__save_every_steps": 1,
    "run__save_total_limit": 3,
}


@pytest.mark.parametrize("final", ["last", "best"])
def test_final_holds_what_the_recipe_says(make_trainer: Trainers, final: str) -> None:
    trainer = make_trainer(evaluate=scores([0.1, 0.5, 0.9, 0.9]), ppo__final=final, **CHANGES)
    trainer.train()
    path = trainer.run.path
    assert equal(path / "best", path / "checkpoint-2")
    for name in ("best", "final"):
        assert "A LoRA adapter of rank" in (path / name / "README.md").read_text()
    assert equal(path / "final", path / "best") == (final == "best")
    assert (trainer.best.step, trainer.best.value) == (2, 0.9)
    note = json.loads((path / "best" / "held_out.json").read_text())
    assert note == {"iteration": 2, "metric": "score", "value": 0.9, "numbers": {"score": 0.9, "other": -1.0}}
    facts = json.loads(trainer.run.environment_file.read_text())["final_policy"]
    assert facts == {
        "iteration": 2 if final == "best" else 3, "policy": final, "best_iteration": 2, "best_score": 0.9,
    }  # fmt: skip


def test_the_starting_policy_can_be_the_best(make_trainer: Trainers) -> None:
    trainer = make_trainer(evaluate=scores([0.7, 0.5, float("nan"), 0.7]), ppo__final="best", **CHANGES)
    start = {
        name: value.clone() for name, value in trainer.vlm.model.named_parameters() if ".default." in name
    }
    trainer.train()
    assert trainer.best.step == 0
    final = adapter(trainer.run.final)
    assert all(torch.equal(value, final[name.replace(".default", "")]) for name, value in start.items())


def test_resume_knows_the_best(make_trainer: Trainers) -> None:
    broken = make_trainer(evaluate=scores([0.1, 0.8]), ppo__final="best", **CHANGES)
    stop_in(broken, 1)
    with pytest.raises(Interrupted):
        broken.train()
    broken.run.release()
    resumed = make_trainer(evaluate=scores([0.4, 0.6]), ppo__final="best", resume=True, **CHANGES)
    resumed.train(resume=True)
    assert (resumed.best.step, resumed.best.value) == (1, 0.8)
    assert equal(resumed.run.final, resumed.run.path / "checkpoint-1")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if ": held-out " in record.message]


def test_every_evaluation_is_logged_beside_the_first_and_the_best(
    make_trainer: Trainers, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "vlm_rlhf.rl"):
        make_trainer(evaluate=scores([0.55, 0.74, math.nan, 0.72]), **CHANGES).train()
    assert said(caplog) == [
        "iteration 0: held-out score 0.550",
        "iteration 1: held-out score 0.740 (start 0.550, best 0.740 at 1)",
        "iteration 2: held-out score nan (start 0.550, best 0.740 at 1)",
        "iteration 3: held-out score 0.720 (start 0.550, best 0.740 at 1)",
    ]


def test_without_a_score_of_the_start_there_is_none_to_compare_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make_trainer: Trainers
) -> None:
    with caplog.at_level(logging.INFO, "vlm_rlhf.rl"):
        make_trainer(evaluate=scores([math.nan, math.nan, 0.2, 0.1]), **CHANGES).train()
    assert said(caplog)[1:] == [
        "iteration 1: held-out score nan",
        "iteration 2: held-out score 0.200 (best 0.200 at 2)",
        "iteration 3: held-out score 0.100 (best 0.200 at 2)",
    ]


def test_the_score_of_the_start_survives_a_resume_and_may_be_missing_from_an_older_state(
    tmp_path: Path,
) -> None:
    best = BestPolicy(tmp_path, metric="score", required=False)
    best.step, best.value, best.start = 3, 0.7, 0.5
    for state, start in (
        (json.loads(json.dumps(best.state_dict())), 0.5),
        ({"step": 3, "value": 0.7}, None),
        ({}, None),
    ):
        other = BestPolicy(tmp_path, metric="score", required=False)
        other.load_state_dict(state)
        assert (other.step, other.value, other.start) == (
            3 if state else None,
            0.7 if state else -math.inf,
            start,
        )


def test_other_processes_log_no_evaluation(make_trainer: Trainers, caplog: pytest.LogCaptureFixture) -> None:
    trainer = make_trainer()
    trainer.best.step, trainer.best.value = 1, 0.9
    engine = SimpleNamespace(is_main=False)
    with caplog.at_level(logging.INFO, "vlm_rlhf.rl"):
        trainer.best.consider(2, {"score": 0.1}, trainer.vlm, engine)  # type: ignore[arg-type]
    assert said(caplog) == []
    assert trainer.best.newest == 0.1


def test_another_metric_and_one_that_is_not_there(make_trainer: Trainers) -> None:
    trainer = make_trainer(evaluate=scores([0.3, 0.2, 0.1, 0.0]), ppo__best_metric="other", **CHANGES)
    trainer.train()
    assert (trainer.best.step, trainer.best.value) == (0, -1.0)
    wrong = make_trainer(name="wrong", evaluate=scores([0.3]), ppo__best_metric="cidre", **CHANGES)
    with pytest.raises(RecipeError, match=r"(?s)best_metric.*expected one of other, score, found 'cidre'"):
        wrong.train()


def test_without_validation_the_last_policy_is_final(make_trainer: Trainers) -> None:
    trainer = make_trainer(ppo__iterations=1)
    trainer.train()
    assert not (trainer.run.path / "best").exists()
    assert trainer.run.final.is_dir()
