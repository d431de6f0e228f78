"""Pictures are checked once each, in order, in threads when there are many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import toolkit.data.image_checks as image_checks
from toolkit.data.image_checks import image_problems


@pytest.mark.parametrize("number", [3, 200])
def test_problems_in_order_each_picture_once(
    tmp_path: Path, picture: Callable[..., Path], number: int
) -> None:
    good = [picture(tmp_path / f"{n}.png") for n in range(number)]
    bad = [tmp_path / f"bad{n}.png" for n in range(3)]
    images = [(f"row {n}", path) for n, path in enumerate([bad[0], *good, bad[1], bad[0], b"", bad[2]])]
    assert image_problems(images) == [
        f"row 0: {bad[0]}: no such file",
        f"row {number + 1}: {bad[1]}: no such file",
        f"row {number + 3}: not an image file (expected PNG, JPEG, WebP, GIF, TIFF or BMP)",
        f"row {number + 4}: {bad[2]}: no such file",
    ]


def test_many_pictures_are_not_decoded(
    tmp_path: Path, picture: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = picture(tmp_path / "a.png", size=(64, 64))
    data = bytearray(damaged.read_bytes())
    data[50:60] = bytes(10)
    damaged.write_bytes(data)
    images = [("row 1", damaged), ("row 2", picture(tmp_path / "b.png"))]
    assert len(image_problems(images)) == 1
    monkeypatch.setattr(image_checks, "FULL_CHECK_LIMIT", 1)
    assert image_problems(images) == []
    assert len(image_problems(images, full=True)) == 1


def test_progress_is_shown_for_long_checks(
    tmp_path: Path,
    picture: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(image_checks, "_SHOWN_FROM", 70)
    assert image_problems([("", picture(tmp_path / f"{n}.png")) for n in range(80)]) == []
    assert "checking pictures  80/80" in capsys.readouterr().err.replace("  ", " ").replace(
        "pictures ", "pictures  "
    )
