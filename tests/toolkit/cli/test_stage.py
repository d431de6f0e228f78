from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolkit.cli.stage import run_stage, stage_main
from toolkit.config.loading import load_recipe
from toolkit.config.schema import SftRecipe
from toolkit.errors import RunFailed
from toolkit.runs.directory import RunDirectory

SFT = """\
stage: sft
model: {id: some/model}
data: {root: data, train: [{kind: caption, captions: captions.json, images: images}]}
run: {output_dir: out/sft}
"""
COUNTING = """
import sys, time
from toolkit.cli.stage import stage_main
from toolkit.runs.atomic import atomic_directory, atomic_write_text

def run(recipe, directory, resume):
    latest = directory.latest_checkpoint(required=["step"]) if resume else None
    start = int((latest / "step").read_text()) if latest else 0
    directory.metrics.truncate_after(start)
    for step in range(start + 1, 41):
        directory.metrics.write(step, square=step * step)
        time.sleep(0.02)
        if step % 5 == 0 or directory.stop.requested:
            with atomic_directory(directory.checkpoint_path(step)) as folder:
                (folder / "step").write_text(str(step))
            directory.prune_checkpoints(2)
        directory.stop.raise_if_requested(f"stopped after step {step}")

sys.exit(stage_main("sft", run))
"""


@pytest.fixture
def folder(in_tmp_path: Path) -> Path:
    (in_tmp_path / "data" / "images").mkdir(parents=True)
    (in_tmp_path / "data" / "captions.json").write_text("{}")
    (in_tmp_path / "sft.yaml").write_text(SFT)
    (in_tmp_path / "stage.py").write_text(COUNTING)
    return in_tmp_path


def nothing(recipe: SftRecipe, directory: RunDirectory, resume: bool) -> None:
    """A stage that has nothing to do."""


def test_the_stage_gets_its_recipe_and_directory(folder: Path) -> None:
    seen: list[tuple[int, str, bool]] = []

    def run(recipe: SftRecipe, directory: RunDirectory, resume: bool) -> None:
        seen.append((recipe.run.seed, str(directory.path), resume))
        directory.metrics.write(1, loss=1.0)

    assert stage_main("sft", run, ["sft.yaml", "run.seed=4"]) == 0
    assert seen == [(4, "out/sft", False)]
    assert RunDirectory("out/sft").is_finished()
    assert stage_main("sft", run, ["sft.yaml", "run.seed=4", "--resume"]) == 0
    assert len(seen) == 1, "a finished run is not run again"


def test_a_stage_that_ends_leaves_its_group_of_processes(folder: Path) -> None:
    from torch import distributed

    def run(recipe: SftRecipe, directory: RunDirectory, resume: bool) -> None:
        store = (folder / "store").as_uri()
        distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)

    assert stage_main("sft", run, ["sft.yaml"]) == 0
    assert not distributed.is_initialized()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sft.yaml", "--seed", "3"], "write it without dashes: run.seed=VALUE"),
        (["gone.yaml"], "expected a recipe file or name"),
        (["sft.yaml", "data.root=gone"], "data.root: expected a folder"),
        (["scenes/ppo"], "stage: expected 'sft', found 'rl'"),
    ],
)
def test_mistakes_exit_with_2_and_write_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert stage_main("sft", nothing, words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not (folder / "out" / "sft").exists()


def test_a_failure_keeps_results_and_a_bug_shows_its_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(recipe: SftRecipe, directory: RunDirectory, resume: bool) -> None:
        directory.metrics.write(1, loss=1.0)
        raise RunFailed("the loss is NaN", remedy="lower the learning rate")

    def breaks(recipe: SftRecipe, directory: RunDirectory, resume: bool) -> None:
        raise ZeroDivisionError

    assert stage_main("sft", fails, ["sft.yaml"]) == 1
    err = capsys.readouterr().err
    assert "error: the loss is NaN\n  remedy: lower the learning rate" in err
    assert "Traceback" not in err
    assert len(RunDirectory("out/sft").metrics.read()) == 1
    assert stage_main("sft", breaks, ["sft.yaml", "--resume"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_exit_code_is_left_for_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_RLHF_EXIT_CODE_FILE", str(folder / "code"))
    assert stage_main("sft", nothing, ["gone.yaml"]) == 2
    assert (folder / "code").read_text() == "2"


def test_run_stage_passes_errors_on(folder: Path) -> None:
    def fails(recipe: SftRecipe, directory: RunDirectory, resume: bool) -> None:
        raise RunFailed("no")

    with pytest.raises(RunFailed):
        run_stage(load_recipe("sft.yaml"), fails)
    assert not (folder / "out" / "sft").exists()


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "stage.py", "sft.yaml", *words],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ.copy(),
    )


def wait_for_steps(count: int) -> None:
    log = RunDirectory("out/sft").metrics
    deadline_s = time.monotonic() + 30
    while len(log.read()) < count and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert len(log.read()) >= count


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_after_a_checkpoint(folder: Path, number: signal.Signals, code: int) -> None:
    child = start()
    wait_for_steps(3)
    child.send_signal(number)
    _, err = child.communicate(timeout=30)
    assert child.returncode == code
    assert "error: stopped after step" in err
    run = RunDirectory("out/sft")
    steps = [record["step"] for record in run.metrics.read()]
    assert run.latest_checkpoint() == run.checkpoint_path(steps[-1])
    assert not run.is_finished()


def test_a_killed_run_resumes_and_logs_every_step_once(folder: Path) -> None:
    child = start()
    wait_for_steps(12)
    child.kill()
    child.communicate()
    again = start("--resume")
    _, err = again.communicate(timeout=30)
    assert again.returncode == 0, err
    run = RunDirectory("out/sft")
    assert [record["step"] for record in run.metrics.read()] == list(range(1, 41))
    facts = json.loads(run.environment_file.read_text())
    assert len(facts["resumed"]) == 1


def test_a_changed_recipe_is_refused_with_its_keys(folder: Path) -> None:
    child = start()
    wait_for_steps(2)
    child.kill()
    child.communicate()
    again = start("--resume", "trainer.learning_rate=1e-3")
    _, err = again.communicate(timeout=30)
    assert again.returncode == 2
    assert "cannot be resumed: the recipe changed" in err
    assert "  trainer.learning_rate: was absent, is 0.001" in err


def test_what_libraries_print_goes_to_stderr(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def chatty(recipe: SftRecipe, directory: RunDirectory, resume: bool) -> None:
        sys.stdout.write("a library says hello\n")

    assert stage_main("sft", chatty, ["sft.yaml"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "a library says hello" in captured.err


def test_a_tracker_that_is_not_installed_is_told_before_the_stage_starts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    started: list[object] = []
    code = stage_main("sft", lambda *all: started.append(all), ["sft.yaml", "run.report_to=[trackio]"])
    assert (code, started) == (3, [])
    text = capsys.readouterr().err
    assert text.count("run.report_to: trackio is not installed") == 1
    assert "pip install 'vlm-rlhf[tracking]'" in text
    assert "Traceback" not in text
    assert not (folder / "out").exists()
