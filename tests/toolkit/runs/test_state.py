from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from toolkit.errors import CheckpointError
from toolkit.runs.state import load_state, save_state


def draws() -> tuple[float, float, float, float]:
    return random.random(), random.gauss(), float(np.random.standard_normal()), float(torch.rand(()))


def test_generators_go_on_where_they_were(tmp_path: Path) -> None:
    random.gauss()  # leaves a second value waiting, which belongs to the state
    np.random.standard_normal()
    save_state(tmp_path / "state.pt", step=3)
    expected = draws()
    draws()
    load_state(tmp_path / "state.pt")
    assert draws() == expected


def test_reading_may_leave_the_generators_alone(tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt")
    torch.manual_seed(5)
    expected = draws()[3]
    torch.manual_seed(5)
    load_state(tmp_path / "state.pt", restore_random=False)
    assert draws()[3] == expected


def test_parts_come_back_equal(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    parts = {
        "optimizer": optimizer.state_dict(),
        "kl": {"coefficient": 0.1},
        "order": [2, 0, 1],
        "none": None,
    }
    save_state(tmp_path / "state.pt", **parts)
    loaded = load_state(tmp_path / "state.pt")
    assert set(loaded) == set(parts)
    assert loaded["order"] == [2, 0, 1]
    assert torch.equal(
        loaded["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"]
    )


def test_objects_are_refused_when_written_and_when_read(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"stats\.0 is a object"):
        save_state(tmp_path / "state.pt", stats=[object()])
    torch.save({"random": {}, "path": Path("x")}, tmp_path / "objects.pt")
    with pytest.raises(CheckpointError, match="cannot be read as resume state"):
        load_state(tmp_path / "objects.pt")


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no resume state"):
        load_state(tmp_path / "gone.pt")
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(CheckpointError, match="cannot be read as resume state"):
        load_state(tmp_path / "torn.pt")
