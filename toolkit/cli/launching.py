"""Commands that run stages, and children that end with their parent and pass their exit code on."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from toolkit.config.devices import gpu_count
from toolkit.config.launchers import LAUNCHERS, launch_problem
from toolkit.config.messages import suggestion
from toolkit.errors import EnvironmentLacking, UsageError
from toolkit.runs.signals import STOP_SIGNALS

__all__ = ["accelerate_file", "quoted", "run_child", "stage_command"]


def stage_command(
    stage: str,
    recipe: Path,
    overrides: Sequence[str],
    *,
    launch: str = "none",
    processes: int | None = None,
    resume: bool = False,
    gradient_accumulation: int = 1,
) -> list[str]:
    """The words of the command that runs a stage: ``python -m recipes.<stage> …``, with accelerate around it.

    ``gradient_accumulation`` is that of the recipe's ``trainer:`` block; DeepSpeed wants to be told the same number.

    Raises:
        UsageError: ``launch`` names neither a launcher nor a file, or it does not fit the stage or ``processes``.
        EnvironmentLacking: the launcher needs a GPU.
    """
    module = ["-m", f"recipes.{stage}", str(recipe), *overrides, *(["--resume"] if resume else [])]
    problem = launch_problem(stage, launch, processes)
    if problem is not None:
        raise UsageError(problem[0], remedy=problem[1])
    if launch == "none":
        return [sys.executable, *module]
    options = ["--config_file", str(accelerate_file(launch)), "--main_process_port", str(_free_port())]
    if processes is None and launch in LAUNCHERS:
        processes = max(gpu_count(), 2 if gpu_count() == 0 else 1)
    if processes is not None:
        options += ["--num_processes", str(processes)]
    if gradient_accumulation != 1 and launch.startswith("zero"):
        options += ["--gradient_accumulation_steps", str(gradient_accumulation)]
    return [sys.executable, "-m", "accelerate.commands.launch", *options, *module]


def accelerate_file(launch: str) -> Path:
    """The accelerate configuration of a launcher name, for GPUs or for the CPU by what this machine has."""
    if launch.endswith((".yaml", ".yml")):
        path = Path(launch)
        if not path.is_file():
            raise UsageError(f"--launch {launch}: expected an accelerate configuration, found no such file")
        return path
    if launch not in LAUNCHERS:
        hint = suggestion(launch, LAUNCHERS)
        raise UsageError(f"--launch {launch}: expected one of {', '.join(LAUNCHERS)} or a FILE.yaml{hint}")
    folder = Path(__file__).resolve().parents[2] / "recipes" / "accelerate"
    if gpu_count() == 0:
        if launch == "fsdp":
            raise EnvironmentLacking(
                "--launch fsdp needs a GPU: on a CPU accelerate drops it without a word",
                remedy="use --launch zero3",
            )
        folder /= "cpu"
    return folder / f"{launch}.yaml"


def quoted(command: Sequence[str]) -> str:
    """A command as it can be pasted into a shell."""
    return shlex.join(command)


def run_child(command: Sequence[str]) -> int:
    """Run a command, pass SIGINT, SIGTERM and SIGUSR1 on to it, and return its exit code.

    The child has its own process group, so that Ctrl-C reaches it once, through here, and it is told to stop when
    this process dies. A child ended by signal N gives 128 + N. Behind a launcher, the code the stage itself ended
    with is returned.
    """
    with tempfile.TemporaryDirectory(prefix="vlm-rlhf-") as folder:
        code_file = Path(folder) / "exit-code"
        environment = {**os.environ, "VLM_RLHF_EXIT_CODE_FILE": str(code_file)}
        behind_launcher = "accelerate.commands.launch" in command
        child = subprocess.Popen(
            list(command),
            env=environment,
            start_new_session=True,
            preexec_fn=_end_with_parent(signal.SIGTERM if behind_launcher else signal.SIGKILL),
        )
        with _forwarding(child):
            code = child.wait()
        if code != 0 and code_file.is_file():
            code = int(code_file.read_text(encoding="ascii") or code)
    return 128 - code if code < 0 else code


@contextlib.contextmanager
def _forwarding(child: subprocess.Popen[bytes]) -> Iterator[None]:
    def forward(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)

    former = {number: signal.signal(number, forward) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _end_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """What a child does before it becomes the command: ask Linux for ``number`` when its parent dies.

    Without it a killed command line would leave a stage behind that writes to a directory which ``--resume`` opens.
    """
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    set_parent_death_signal = 1
    return lambda: libc.prctl(set_parent_death_signal, int(number)) and None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
