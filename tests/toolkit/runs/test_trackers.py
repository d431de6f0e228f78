from __future__ import annotations

import sys
from pathlib import Path

import pytest

from toolkit.errors import EnvironmentLacking
from toolkit.runs.trackers import open_trackers


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


def test_other_ranks_open_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("RANK", "1")
    with open_trackers(["tensorboard"], tmp_path) as trackers:
        trackers.log(1, loss=0.5)
    assert list(tmp_path.iterdir()) == []
