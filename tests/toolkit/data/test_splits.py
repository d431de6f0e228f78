"""Parts depend on the image id alone; shared pictures are found by id and by content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.data.splits import check_leakage, clashing_ids, leakage_problems, part_of
from toolkit.errors import DataError
from toolkit.records import ImageSource, PromptRow, SftRow, image_prompt


def _prompt(sample_id: str, image_id: int | str, *images: ImageSource) -> PromptRow:
    return PromptRow(
        sample_id=sample_id, task="caption", prompt=image_prompt("x"), images=tuple(images), image_id=image_id
    )


def _sft(sample_id: str, *images: ImageSource) -> SftRow:
    return SftRow(
        sample_id=sample_id, task="caption", prompt=image_prompt("x"), completion="y", images=tuple(images)
    )


def test_parts_are_stable_and_in_proportion() -> None:
    assert [part_of(image_id) for image_id in (8, "8", "b.png", 397133)] == ["test", "test", "val", "train"]
    counts = Counter(part_of(image_id) for image_id in range(10_000))
    assert counts["train"] == pytest.approx(8000, abs=150)
    assert counts["val"] == pytest.approx(1000, abs=100)
    assert part_of("\ud800") in ("train", "val", "test")


def test_shared_image_id() -> None:
    parts = {
        "train": [_prompt("t1", 7, b"one")],
        "val": [_prompt("v1", "7", b"two"), _prompt("v2", 8, b"three")],
    }
    assert leakage_problems(parts) == ["image id '7' is in both train (sample 't1') and val (sample 'v1')"]


def test_shared_content(tmp_path: Path, picture: Callable[..., Path]) -> None:
    a, copy = picture(tmp_path / "a.png"), picture(tmp_path / "copy.png")
    other = picture(tmp_path / "other.png", (0, 0, 9))
    parts = {"train": [_sft("t1", a), _sft("t2", a)], "val": [_sft("v1", other)], "test": [_sft("x1", copy)]}
    assert leakage_problems(parts) == [
        f"picture {copy} is in both train (sample 't1') and test (sample 'x1')"
    ]
    with pytest.raises(
        DataError, match=r"train / val / test: 1 problem\n.*\n  remedy: remove these pictures"
    ):
        check_leakage(parts)


def test_rows_of_one_part_may_share_a_picture() -> None:
    check_leakage(
        {"train": [_sft("t1", b"a"), _sft("t2", b"a"), _prompt("t3", 1, b"a")], "val": [_sft("v1", b"b")]}
    )


def test_one_image_id_for_two_pictures(tmp_path: Path, picture: Callable[..., Path]) -> None:
    a, copy = picture(tmp_path / "a.png"), picture(tmp_path / "copy.png")
    other = picture(tmp_path / "other.png", (0, 0, 9))
    rows = [("f:1", _prompt("a", 1, a)), ("f:2", _prompt("b", 1, copy)), ("f:3", _prompt("c", 1, other))]
    [problem] = clashing_ids(rows)
    assert (
        problem
        == "f:3: image id '1' stands for another picture than in f:1; give each picture its own image id"
    )
