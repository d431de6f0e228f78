from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from toolkit.errors import EnvironmentLacking
from toolkit.runs.sample_table import SampleTable
from toolkit.runs.trackers import Trackers, open_trackers


def test_a_tracker_that_is_not_installed_exits_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(EnvironmentLacking, match=r"run\.report_to: wandb is not installed") as caught:
        open_trackers(["wandb"], tmp_path)
    assert caught.value.exit_code == 3
    assert caught.value.remedy == "pip install 'vlm-rlhf[tracking]'"


def test_no_trackers_do_nothing(tmp_path: Path) -> None:
    with open_trackers([], tmp_path) as trackers:
        trackers.log(1, loss=1.0)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_finite_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with open_trackers(["tensorboard"], tmp_path, config={"stage": "sft"}) as trackers:
        trackers.log(3, loss=0.5, nan=float("nan"), text="x", flag=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 0.5)]


def test_tensorboard_gets_a_table_of_samples_and_their_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    wide, high = Image.new("RGB", (20, 10), "red"), Image.new("RGB", (10, 16), "blue")
    table = SampleTable(
        ["completion", "total"], [["a <b>|x|</b>\n*y*", 0.5], ["", None], ["z", -1.25]], [wide, None, high]
    )
    with open_trackers(["tensorboard"], tmp_path) as trackers:
        trackers.log_samples(4, table)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    (text,) = events.Tensors("samples/text_summary")
    assert text.step == 4
    assert text.tensor_proto.string_val[0].decode().splitlines() == [
        "| completion | total |",
        "| --- | --- |",
        r"| a &lt;b&gt;\|x\|&lt;/b&gt; \*y\* | 0.500 |",
        "|  |  |",
        "| z | -1.250 |",
    ]
    (image,) = events.Images("samples")
    drawn = Image.open(io.BytesIO(image.encoded_image_string)).convert("RGB")
    assert (image.step, drawn.size) == (4, (40, 20))  # two squares side by side
    assert [drawn.getpixel(at) for at in ((10, 10), (10, 1), (30, 10), (22, 10))] == [
        (255, 0, 0), (255, 255, 255), (0, 0, 255), (255, 255, 255),
    ]  # fmt: skip


class Refusing:
    """A tracker whose service takes no tables."""

    def log(self, step: int, values: object) -> None: ...

    def log_samples(self, step: int, table: SampleTable) -> None:
        raise RuntimeError("quota")

    def close(self) -> None: ...


def test_a_tracker_that_takes_no_samples_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    Trackers([Refusing()]).log_samples(1, SampleTable([], [], []))
    assert "refusing got no samples: RuntimeError: quota" in caplog.text


def test_other_ranks_open_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("RANK", "1")
    with open_trackers(["tensorboard"], tmp_path) as trackers:
        trackers.log(1, loss=0.5)
    assert list(tmp_path.iterdir()) == []


LOGGING = """
import sys
from pathlib import Path
from PIL import Image
from toolkit.cli.guard import guarded
from toolkit.runs.offline import quiet_environment
from toolkit.runs.sample_table import SampleTable
from toolkit.runs.trackers import open_trackers

def work():
    with open_trackers([sys.argv[1]], Path("seed-7"), config={"stage": "rl", "ppo": {"epochs": 2}}) as trackers:
        for step, value in ((1, 0.5), (2, 0.8125)):
            trackers.log(step, **{"reward/total": value, "not_a_number": float("nan")})
        picture = Image.new("RGB", (8, 8), "red")
        rows = [["a red circle", 0.5], ["", None]]
        trackers.log_samples(2, SampleTable(["completion", "total"], rows, [picture, None]))
    return 0

quiet_environment()
sys.exit(guarded(work, debug=False))
"""


def logged_by(name: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Two steps sent to a tracker by a process that cannot reach the network."""
    (folder / "seed-7").mkdir()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return subprocess.run(
        [sys.executable, "-c", LOGGING, name], cwd=folder, env=variables | environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_wandb_writes_offline_unless_told_otherwise(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    done = logged_by("wandb", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "seed-7" / "wandb").glob("offline-run-*/*.wandb")
    data = file.read_bytes()
    for text in (b"vlm-rlhf", b"seed-7", b"reward/total", b"0.5", b"0.8125", b"epochs"):
        assert text in data
    assert b"not_a_number" not in data
    assert "got no samples" not in done.stderr
    (table,) = (file.parent / "files" / "media" / "table").glob("samples*.table.json")
    held = json.loads(table.read_text())
    assert held["columns"] == ["picture", "completion", "total"]
    assert [row[1:] for row in held["data"]] == [["a red circle", 0.5], ["", None]]
    assert held["data"][1][0] is None
    assert b"media/images/" in data  # the run's table names them, its artifact holds them


def test_wandb_online_without_a_key_exits_with_3(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    done = logged_by("wandb", tmp_path, WANDB_MODE="online", HOME=str(tmp_path), NETRC=str(tmp_path / "none"))
    assert done.returncode == 3
    assert "run.report_to: wandb did not start" in done.stderr
    assert "WANDB_MODE=offline" in done.stderr
    assert "Traceback" not in done.stderr


def test_trackio_writes_where_its_dashboard_looks(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    done = logged_by("trackio", tmp_path, TRACKIO_DIR=str(tmp_path / "trackio"))
    assert done.returncode == 0, done.stderr[-2000:]
    with closing(sqlite3.connect(tmp_path / "trackio" / "vlm-rlhf.db")) as database:
        rows = database.execute("select run_name, step, metrics from metrics order by step").fetchall()
        ((config,),) = database.execute("select config from configs").fetchall()
    logged = [(name, step, json.loads(values)) for name, step, values in rows]
    assert [entry for entry in logged if "samples" not in entry[2]] == [
        ("seed-7", 1, {"reward/total": 0.5}),
        ("seed-7", 2, {"reward/total": 0.8125}),
    ]
    ((_, step, values),) = [entry for entry in logged if "samples" in entry[2]]
    assert step == 2
    assert "a red circle" in json.dumps(values)
    assert "got no samples" not in done.stderr
    assert json.loads(config)["ppo"] == {"epochs": 2}
