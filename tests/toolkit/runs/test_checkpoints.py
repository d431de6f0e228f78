from __future__ import annotations

from pathlib import Path

from toolkit.runs.checkpoints import checkpoint_step, checkpoints, latest_checkpoint, prune


def make(folder: Path, *steps: int) -> None:
    for step in steps:
        (folder / f"checkpoint-{step}").mkdir()
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")


def test_the_latest_is_by_number_and_complete(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "gone") is None
    make(tmp_path, 2, 10, 9)
    (tmp_path / "checkpoint-11").mkdir()
    (tmp_path / "checkpoint-x").mkdir()
    (tmp_path / "checkpoint-99").write_text("a file")
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-11"
    assert latest_checkpoint(tmp_path, required=["trainer_state.json"]) == tmp_path / "checkpoint-10"
    assert [checkpoint_step(path) for path in checkpoints(tmp_path)] == [2, 9, 10, 11]
    assert checkpoint_step("final") is None


def test_pruning_spares_the_best_and_the_latest(tmp_path: Path) -> None:
    make(tmp_path, 1, 2, 3, 4)
    assert prune(tmp_path, 2, keep=tmp_path / "checkpoint-1") == [
        tmp_path / "checkpoint-2",
        tmp_path / "checkpoint-3",
    ]
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-4"]
    assert prune(tmp_path, 1, keep=tmp_path / "checkpoint-1") == []
    assert prune(tmp_path, 0) == [tmp_path / "checkpoint-1"]
    assert prune(tmp_path / "gone", 1) == []
