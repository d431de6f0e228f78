from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from toolkit.cli.launching import run_child
from toolkit.config.launchers import LAUNCHERS

CHILD = """
import signal, sys, time
from pathlib import Path
def stop(number, frame):
    Path(sys.argv[1]).write_text(str(number))
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
Path(sys.argv[1]).write_text("ready")
time.sleep(60)
"""
PARENT = """
import sys
from toolkit.cli.launching import run_child
sys.exit(run_child([sys.executable, "-c", sys.argv[1], sys.argv[2]]))
"""


def wait_for(path: Path, text: str, timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if path.exists() and path.read_text() == text:
            return
        time.sleep(0.02)
    pytest.fail(f"{path} never said {text!r}")


@pytest.mark.parametrize(("code", "expected"), [("raise SystemExit(0)", 0), ("raise SystemExit(2)", 2)])
def test_exit_codes_pass(code: str, expected: int) -> None:
    assert run_child([sys.executable, "-c", code]) == expected


def test_a_killed_child_gives_128_plus_the_signal() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run_child([sys.executable, "-c", code]) == 137


def test_a_launcher_that_hides_the_code_is_seen_through() -> None:
    code = "import os; open(os.environ['VLM_RLHF_EXIT_CODE_FILE'], 'w').write('143'); raise SystemExit(1)"
    assert run_child([sys.executable, "-c", code]) == 143


def test_signals_are_forwarded(tmp_path: Path) -> None:
    state = tmp_path / "state"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(state)])
    wait_for(state, "ready")
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(timeout=20) == 143
    assert state.read_text() == str(int(signal.SIGTERM))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="parent-death signals are Linux's")
def test_a_killed_command_line_leaves_no_child_behind(tmp_path: Path) -> None:
    state = tmp_path / "state"
    code = CHILD.replace('write_text("ready")', "write_text(str(__import__('os').getpid()))")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, code, str(state)])
    deadline_s = time.monotonic() + 20
    while not (state.exists() and state.read_text()) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    child = int(state.read_text())
    parent.kill()
    parent.wait()
    while time.monotonic() < deadline_s:
        status = Path(f"/proc/{child}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child outlived the command line")


@pytest.mark.parametrize("launch", [name for name in LAUNCHERS if name != "none"])
def test_every_launcher_has_a_file_for_gpus_and_for_the_cpu(repository: Path, launch: str) -> None:
    for folder, cpu in (("recipes/accelerate", False), ("recipes/accelerate/cpu", True)):
        path = repository / folder / f"{launch}.yaml"
        if cpu and launch == "fsdp":
            assert not path.exists()
            continue
        config = YAML(typ="safe", pure=True).load(path)
        assert config["use_cpu"] is cpu
        assert config["mixed_precision"] == "no"
        if launch.startswith("zero"):
            deepspeed = config["deepspeed_config"]
            assert config["distributed_type"] == "DEEPSPEED"
            assert str(deepspeed["zero_stage"]) == launch[4]
            assert deepspeed["gradient_clipping"] == "auto"
            assert deepspeed["offload_optimizer_device"] == ("cpu" if launch.endswith("offload") else "none")


STAGE = """
import os, sys, time
from toolkit.cli.stage import stage_main
from toolkit.errors import DataError

def run(recipe, directory, resume):
    if recipe.run.seed == 1:
        raise DataError("captions.json", "no captions")
    directory.metrics.write(1, processes=int(os.environ["WORLD_SIZE"]))
    while not directory.stop.requested:
        time.sleep(0.05)
    directory.stop.raise_if_requested("stopped")

sys.exit(stage_main("sft", run))
"""
RECIPE = """
stage: sft
model: {id: some/model}
data: {root: ., train: [{kind: caption, captions: captions.json}]}
run: {output_dir: out}
"""


@pytest.mark.slow
@pytest.mark.distributed
def test_behind_accelerate_exit_codes_and_signals_are_those_of_the_stage(in_tmp_path: Path) -> None:
    from toolkit.cli.launching import stage_command

    Path("recipes").mkdir()
    Path("stage.py").write_text(STAGE)
    Path("captions.json").write_text("{}")
    Path("sft.yaml").write_text(RECIPE)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = stage_command("sft", Path("sft.yaml"), [], launch="ddp", processes=2)
    at = len(command) - 1 - command[::-1].index("-m")
    command = [*command[:at], "stage.py", *command[at + 2 :]]
    parent = "import sys\nfrom toolkit.cli.launching import run_child\nsys.exit(run_child(sys.argv[1:]))"
    wrong = [sys.executable, "-c", parent, *command, "run.seed=1"]
    assert subprocess.run(wrong, env=environment, check=False, timeout=120).returncode == 2
    assert not Path("out").exists()
    running = subprocess.Popen([sys.executable, "-c", parent, *command], env=environment)
    deadline_s = time.monotonic() + 60
    while not Path("out/metrics.jsonl").exists() and running.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert Path("out/metrics.jsonl").read_text() == '{"step": 1, "processes": 2}\n'
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=60) == 143
