# ruff: noqa: E501 - messages are shown whole
from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolkit.cli.main import COMMANDS, main

SFT = """\
stage: sft
model: {id: some/model}
data: {root: data, train: [{kind: caption, captions: captions.json, images: images}]}
run: {output_dir: out/sft}
"""


@pytest.fixture
def folder(in_tmp_path: Path) -> Path:
    (in_tmp_path / "data" / "images").mkdir(parents=True)
    (in_tmp_path / "data" / "captions.json").write_text("{}")
    (in_tmp_path / "sft.yaml").write_text(SFT)
    return in_tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_lists_every_command_quickly() -> None:
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", "--help"], capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - began_s
    assert done.returncode == 0
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert seconds < 2.0, "0.05 s on an idle machine; a heavy import costs seconds"


def test_help_loads_no_parser_of_any_command() -> None:
    code = "import sys, toolkit.cli.main as m; m.main(['--help']); sys.exit('pydantic' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module(COMMANDS[name][0])
    code, out, _ = run(capsys, name, "--help")
    assert code == 0
    assert out.startswith(f"usage: vlm-rlhf {name}")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert out.startswith("vlm-rlhf ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "usage: vlm-rlhf COMMAND"),
        (["chek", "sft.yaml"], "there is no command 'chek'; did you mean 'check'?"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["recipes"], "the following arguments are required: ls|cp|schema"),
        (["doctor", "--bogus"], "unrecognized arguments: --bogus"),
        (["check"], "the following arguments are required: RECIPE"),
        (["check", "gone.yaml"], "gone.yaml: 1 problem\n  expected a recipe file or name, found neither"),
        (["check", "sft.yaml", "--seed", "4"], "'--seed' is no override of a recipe value\n  remedy: write it without dashes: run.seed=VALUE"),
        (["check", "sft.yaml", "run.sed=4"], "did you mean 'seed'?"),
        (["check", "sft.yaml", "data.root=gone"], "sft.yaml  data.root: expected a folder, found nothing at 'gone'"),
        (["run", "sft.yaml", "--launch", "zero4"], "--launch zero4: expected one of none, ddp,"),
        (["run", "sft.yaml", "--launch", "gone.yaml"], "expected an accelerate configuration, found no such file"),
        (["run", "sft.yaml", "--processes", "2"], "--processes 2 needs a launcher"),
        (["run", "sft.yaml", "--processes", "0"], "--processes 0: expected at least 1"),
        (["run", "scenes/quickstart", "--launch", "ddp"], "--launch ddp: a pipeline recipe runs in one process"),
        (["run", "scenes/eval", "--launch", "zero3"], "--launch zero3: an eval recipe shares batches, never weights"),
        (["recipes", "cp", "scenes/ppoo", "x"], "did you mean 'scenes/ppo'?"),
    ],
)  # fmt: skip
def test_mistakes_exit_with_2_and_no_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, out, err = run(capsys, *words)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_RLHF_DEBUG", "")
    code, _, err = run(capsys, "check", "gone.yaml", "--debug")
    assert code == 2
    assert "Traceback" in err


def test_check_passes_a_correct_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "check", "sft.yaml", "run.seed=4")[:2] == (0, "sft.yaml: a correct sft recipe\n")
    assert not (folder / "out").exists()


def test_overrides_may_follow_options(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "run", "sft.yaml", "a.b=1", "--dry-run", "run.seed=4")
    assert (code, out) == (2, "")
    code, out, _ = run(
        capsys, "run", "sft.yaml", "run.seed=3", "--dry-run", "--resume", "run.log_every_steps=4"
    )
    assert code == 0
    words = out.split()
    assert words[1:] == ["-m", "recipes.sft", "sft.yaml", "run.seed=3", "run.log_every_steps=4", "--resume"]
    assert not (folder / "out").exists()


def test_launchers_become_accelerate_commands(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for launch in ("ddp", "zero1", "zero2", "zero2-offload", "zero3", "zero3-offload"):
        code, out, _ = run(capsys, "run", "sft.yaml", "--launch", launch, "--dry-run", "--processes", "3")
        words = out.split()
        assert code == 0
        assert words[1:3] == ["-m", "accelerate.commands.launch"]
        assert words[words.index("--config_file") + 1] == str(
            repository / "recipes/accelerate/cpu" / f"{launch}.yaml"
        )
        assert words[words.index("--num_processes") + 1] == "3"
        assert words[-3:] == ["-m", "recipes.sft", "sft.yaml"]
    accumulating = ["run", "sft.yaml", "trainer.gradient_accumulation_steps=4", "--dry-run", "--launch"]
    assert "--gradient_accumulation_steps 4 " in run(capsys, *accumulating, "zero2")[1]
    assert "--gradient_accumulation_steps" not in run(capsys, *accumulating, "ddp")[1].replace("trainer.", "")
    code, _, err = run(capsys, "run", "sft.yaml", "--launch", "fsdp", "--dry-run")
    assert code == 3
    assert "needs a GPU" in err


@pytest.mark.slow
def test_a_data_error_of_the_stage_passes_through_and_leaves_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "data" / "captions.json").write_text("{")
    assert main(["run", "sft.yaml"]) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"$ {sys.executable} -m recipes.sft sft.yaml\n")
    assert "captions.json" in err
    assert "Traceback" not in err
    assert not (folder / "out").exists()


def test_recipes_ls_cp_and_schema(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "recipes", "ls")
    assert code == 0
    assert any(line.startswith("scenes/ppo ") and " rl " in line for line in out.splitlines())
    assert run(capsys, "recipes", "cp", "scenes/ppo", "mine.yaml")[:2] == (0, "mine.yaml\n")
    assert (folder / "mine.yaml").is_file()
    code, _, err = run(capsys, "recipes", "cp", "scenes/ppo", "mine.yaml")
    assert code == 2
    assert "mine.yaml exists already" in err
    code, out, _ = run(capsys, "recipes", "schema")
    assert json.loads(out)["title"] == "vlm-rlhf recipe"


def test_the_quickstart_is_a_resuming_pipeline(
    in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(
        "toolkit.cli.launching.run_child", lambda command: commands.append(list(command)) or 0
    )
    assert run(capsys, "quickstart", "--smoke", "--seed", "2", "--out", "a b: c")[0] == 0
    assert commands[0][1:3] == ["-m", "recipes.pipeline"]
    assert commands[0][3].endswith("smoke.yaml")
    assert commands[0][4:] == ["run.seed=2", 'run.output_dir="a b: c"', "--resume"]


@pytest.mark.slow
def test_doctor_reports_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "doctor", "--json")
    report = json.loads(out)
    assert code == (0 if report["ok"] else 3)
    assert {"name", "status", "found", "remedy"} == set(report["checks"][0])
