from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from toolkit.config.loading import parse_recipe
from toolkit.config.schema import Recipe
from toolkit.errors import CheckpointError
from toolkit.runs.directory import RunDirectory, _may_change


def recipe(folder: Path, **run: Any) -> Recipe:
    values = {
        "stage": "sft",
        "model": {"id": str(folder / "base")},
        "data": {
            "root": str(folder),
            "train": [{"kind": "caption", "captions": "c.json", "images": "images"}],
        },
        "run": {"output_dir": str(folder / "out"), "seed": 3, **run},
    }
    return parse_recipe(values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"picture")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "c.json").write_text("{}")
    return tmp_path


def begun(folder: Path) -> RunDirectory:
    run = RunDirectory(folder / "out")
    run.prepare(recipe(folder))
    run.metrics.write(1, loss=1.0)
    run.release()
    return run


def test_creating_the_object_writes_nothing(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prepare_records_what_the_run_is_made_of(folder: Path) -> None:
    run = RunDirectory(folder / "out")
    run.prepare(recipe(folder), recipe_path=folder / "c.json")
    run.record(base_revision="abc", share=float("nan"))
    facts = json.loads(run.environment_file.read_text())
    assert facts["seeds"] == {"run": 3}
    assert facts["versions"]["torch"]
    assert facts["command"][1:] == sys.argv
    assert facts["inputs"][str(folder / "c.json")] == hashlib.sha256(b"{}").hexdigest()
    assert facts["inputs"][str(folder / "images")]["files"] == 1
    weights = facts["models"]["model"]["weights"]
    assert weights == {"model.safetensors": hashlib.sha256(b"weights").hexdigest()}
    assert (facts["base_revision"], facts["share"]) == ("abc", None)
    assert (run.final, run.samples, run.checkpoint_path(4)) == (
        run.path / "final",
        run.path / "samples",
        run.path / "checkpoint-4",
    )


def test_a_run_without_results_leaves_no_folder(folder: Path) -> None:
    run = RunDirectory(folder / "a" / "b" / "out")
    run.prepare(recipe(folder))
    run.release()
    assert not (folder / "a").exists()


def test_a_start_that_died_before_any_result_is_started_again(folder: Path) -> None:
    run = RunDirectory(folder / "out")
    run.prepare(recipe(folder))
    del run  # not released, as after a kill
    again = RunDirectory(folder / "out")
    again.prepare(recipe(folder, seed=4))
    assert "seed: 4" in again.recipe_file.read_text()
    again.release()


def test_results_are_not_overwritten(folder: Path) -> None:
    begun(folder)
    with pytest.raises(CheckpointError, match="already holds a run of the same recipe") as caught:
        RunDirectory(folder / "out").prepare(recipe(folder))
    assert caught.value.exit_code == 2
    assert "--resume" in str(caught.value.remedy)
    with pytest.raises(CheckpointError, match="already holds a run of another recipe") as caught:
        RunDirectory(folder / "out").prepare(recipe(folder, seed=4))
    assert "--resume" not in str(caught.value.remedy)


def test_a_run_of_a_version_without_some_key_is_resumed_unless_the_key_is_set(folder: Path) -> None:
    run = begun(folder)
    text = run.recipe_file.read_text()
    assert "  eval_every_steps: null\n" in text
    run.recipe_file.write_text(text.replace("  eval_every_steps: null\n", ""))
    assert run.changed_keys(recipe(folder)) == []
    assert run.changed_keys(recipe(folder, eval_every_steps=3)) != []


def test_what_watches_a_run_may_change(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = begun(folder)
    settings = {
        "report_to": ["tensorboard"],
        "log_every_steps": 3,
        "save_every_steps": 7,
        "save_total_limit": 5,
    }
    again = RunDirectory(folder / "out")
    with caplog.at_level("INFO"):
        again.prepare(recipe(folder, **settings), resume=True)
    again.release()
    assert "goes on with another setting: run.save_every_steps: was None, is 7" in caplog.text
    assert "save_every_steps: 7" in run.recipe_file.read_text()
    assert _may_change("guards.length_action")
    assert not _may_change("guards.calibration_samples")
    assert not _may_change("run.seed")


def test_a_changed_recipe_is_not_resumed_and_every_key_is_named(folder: Path) -> None:
    begun(folder)
    changed = recipe(folder, seed=4, eval_every_steps=3)
    with pytest.raises(CheckpointError, match="the recipe changed since the run began") as caught:
        RunDirectory(folder / "out").prepare(changed, resume=True)
    assert caught.value.exit_code == 2
    assert "  run.seed: was 3, is 4" in caught.value.message
    assert "  run.eval_every_steps: was None, is 3" in caught.value.message


def test_the_same_recipe_is_resumed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = begun(folder)
    (folder / "c.json").write_text("{ }")
    again = RunDirectory(folder / "out")
    again.prepare(recipe(folder), resume=True)
    again.release()
    facts = json.loads(run.environment_file.read_text())
    assert len(facts["resumed"]) == 1
    assert facts["inputs"][str(folder / "c.json")] == hashlib.sha256(b"{}").hexdigest()
    assert run.metrics.read() == [{"step": 1, "loss": 1.0}]


def test_resuming_what_never_began_begins(folder: Path) -> None:
    run = RunDirectory(folder / "out")
    run.prepare(recipe(folder), resume=True)
    assert run.recipe_file.is_file()
    run.release()


def test_a_moved_directory_is_resumed(folder: Path) -> None:
    begun(folder)
    (folder / "out").rename(folder / "moved")
    run = RunDirectory(folder / "moved")
    run.prepare(recipe(folder, output_dir=str(folder / "moved")), resume=True)
    run.release()


def test_other_peoples_files_are_left_alone(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="is not empty and holds no run"):
        RunDirectory(folder / "images").prepare(recipe(folder), resume=True)
    with pytest.raises(CheckpointError, match="is a file, expected a run directory"):
        RunDirectory(folder / "c.json").prepare(recipe(folder))


def test_finished_is_remembered(folder: Path) -> None:
    run = RunDirectory(folder / "out")
    run.prepare(recipe(folder))
    assert not run.is_finished()
    run.mark_finished(seconds=1.5)
    run.release()
    assert RunDirectory(folder / "out").is_finished()
    assert json.loads((run.path / "finished.json").read_text()) == {"seconds": 1.5}


def test_two_processes_cannot_write_to_one_directory(folder: Path) -> None:
    run = RunDirectory(folder / "out")
    run.prepare(recipe(folder))
    code = (
        "import sys\nfrom pathlib import Path\nfrom toolkit.errors import CheckpointError\n"
        "from toolkit.runs.lock import DirectoryLock\n"
        "try:\n    DirectoryLock(Path(sys.argv[1]), timeout_s=0.1).acquire()\n"
        "except CheckpointError as error:\n    sys.stdout.write(str(error)); sys.exit(error.exit_code)\n"
    )
    command = [sys.executable, "-c", code, str(run.path / ".lock")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is being written by another process" in done.stdout
    run.release()


def test_a_waiting_process_gets_a_fresh_lock_when_the_holder_removes_the_directory(folder: Path) -> None:
    first = RunDirectory(folder / "out")
    first.prepare(recipe(folder))
    second = RunDirectory(folder / "out")
    waiting = threading.Thread(target=second.prepare, args=(recipe(folder),))
    waiting.start()
    time.sleep(0.3)
    first.release()
    waiting.join(timeout=10)
    assert second.recipe_file.is_file()
    first.release()
    assert second.recipe_file.is_file(), "a directory is removed by its holder alone"
    second.release()
    assert not second.path.exists()


def test_other_ranks_write_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    run = RunDirectory(folder / "out")
    run.prepare(recipe(folder))
    run.metrics.write(1, loss=1.0)
    run.record(a=1)
    run.mark_finished()
    run.release()
    assert not run.path.exists()


def test_a_changed_input_is_told_on_resume_and_a_renamed_one_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("vlm_rlhf"), "propagate", True)
    first = RunDirectory(folder / "out")
    first.prepare(recipe(folder), recipe_path=folder / "c.json")
    first.metrics.write(1, loss=1.0)
    first.release()
    for path in (Path("c.json"), folder / "c.json"):  # the recipe's file, named from another directory
        monkeypatch.chdir(folder)
        again = RunDirectory(folder / "out")
        again.prepare(recipe(folder), resume=True, recipe_path=path)
        again.release()
    assert "changed since" not in caplog.text
    (folder / "c.json").write_text("{ }")
    again.prepare(recipe(folder), resume=True, recipe_path=folder / "c.json")
    again.release()
    assert f"{folder / 'c.json'} changed since the run began" in caplog.text
