"""Jobs in worker processes. What they do is taken from the standard library: a worker imports it by name."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolkit.config.catalogue import find_recipe
from toolkit.errors import DataError, Interrupted, RecipeError, RunFailed, ToolkitError, UsageError
from toolkit.runs.jobs import Job, NamedLines, run_jobs
from toolkit.runs.signals import StopSignals

PARENT = """
import signal, sys
from pathlib import Path
from toolkit.runs.jobs import Job, run_jobs
from toolkit.runs.signals import StopSignals
if __name__ == "__main__":
    stop = StopSignals()
    with stop.installed():
        run_jobs([Job("long", (), Path(sys.argv[1]).touch), Job("longer", ("long",), signal.pause)],
                 at_once=2, stop=stop)
"""


def touch(path: Path, *after: str, name: str | None = None) -> Job:
    return Job(name or path.name, after, path.touch)


def test_a_job_starts_after_those_it_needs(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    jobs = [
        touch(first),
        Job("second", ("first",), first.rename, (second,)),
        Job("third", ("second",), second.rename, (third,)),
    ]
    run_jobs(jobs, at_once=2, stop=StopSignals())
    assert [path.name for path in tmp_path.iterdir()] == ["third"]


def test_two_jobs_run_at_the_same_time(tmp_path: Path) -> None:
    # Each end of a named pipe waits for the other one: one after the other they would wait for ever.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    jobs = [Job("read", (), pipe.read_text), Job("write", (), pipe.write_text, ("met",))]
    run_jobs(jobs, at_once=2, stop=StopSignals())


def test_the_error_of_a_job_comes_back_and_nothing_after_it_starts(tmp_path: Path) -> None:
    jobs = [Job("bad", (), find_recipe, ("scenes/nothing",)), touch(tmp_path / "after", "bad")]
    with pytest.raises(ToolkitError, match="scenes/nothing"):
        run_jobs(jobs, at_once=2, stop=StopSignals())
    assert not (tmp_path / "after").exists()


def test_a_failure_stops_the_jobs_beside_it() -> None:
    # ``pause`` returns when a signal arrives. The worker of the failed job is idle by then and has to survive it.
    jobs = [
        Job("long", (), signal.pause),
        Job("first", (), time.sleep, (1.5,)),
        Job("bad", ("first",), find_recipe, ("scenes/nothing",)),
    ]
    with pytest.raises(ToolkitError, match="scenes/nothing"):
        run_jobs(jobs, at_once=2, stop=StopSignals())


def test_a_worker_that_dies_is_named() -> None:
    with pytest.raises(RunFailed, match="process of reward died"):
        run_jobs([Job("reward", (), os._exit, (9,))], at_once=2, stop=StopSignals())


def test_no_job_starts_after_a_signal(tmp_path: Path) -> None:
    stop = StopSignals()
    stop.request(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        run_jobs([touch(tmp_path / "never")], at_once=2, stop=stop)
    assert caught.value.exit_code == 143
    assert not (tmp_path / "never").exists()


def test_jobs_that_wait_for_each_other_are_a_fault() -> None:
    with pytest.raises(RuntimeError, match="wait for each other: a, b"):
        run_jobs(
            [Job("a", ("b",), time.sleep, (0,)), Job("b", ("a",), time.sleep, (0,))],
            at_once=2,
            stop=StopSignals(),
        )


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for children in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    started = tmp_path / "started"
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script), str(started)], stderr=subprocess.PIPE)
    until(started.exists)
    time.sleep(1.5)  # the second job is waiting by then
    workers = children(parent.pid)
    assert workers
    parent.send_signal(number)
    parent.communicate(timeout=30)
    until(lambda: not any(alive(worker) for worker in workers))


def until(what, timeout_s: float = 30) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline_s, "it did not come to pass"
        time.sleep(0.05)


def children(process: int) -> list[int]:
    """Process ids of the children (fields of ``/proc/<pid>/stat`` after the name: state, parent)."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (folder / "stat").exists():
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            found += [int(folder.name)] if int(fields[1]) == process else []
    return found


def alive(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    "error",
    [
        DataError("captions.json", ["row 3: empty", "row 4: empty"], remedy="fill them"),
        RecipeError("a.yaml", "model.id: missing"),
        Interrupted("stopped", exit_code=143),
        UsageError("wrong", remedy="right"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_the_way_between_processes(error: ToolkitError) -> None:
    import pickle

    again = pickle.loads(pickle.dumps(error))  # noqa: S301 (written two lines above)
    assert type(again) is type(error)
    assert (str(again), again.exit_code, vars(again)) == (str(error), error.exit_code, vars(error))


def test_lines_carry_the_name_and_are_whole() -> None:
    text = io.StringIO()
    with NamedLines("ppo   ", text) as lines:
        for part in ("one", " line\ntwo", "\n", "rest"):
            lines.write(part)
        assert text.getvalue() == "ppo     one line\nppo     two\n"
    assert text.getvalue().endswith("ppo     rest\n")
