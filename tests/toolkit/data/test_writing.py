"""Written preference rows read back, with their pictures beside them."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image

from toolkit.data.images import load_image
from toolkit.data.preferences import read_preference_rows
from toolkit.data.writing import write_preference_rows
from toolkit.records import PreferenceRow, image_prompt


def test_round_trip(tmp_path: Path, picture: Callable[..., Path]) -> None:
    buffer = BytesIO()
    Image.new("RGB", (2, 2), "blue").save(buffer, "PNG")
    elsewhere = picture(tmp_path / "elsewhere/a.png")
    rows = [
        PreferenceRow(
            sample_id=f"p{number}",
            task="caption",
            prompt=image_prompt("Describe.", images=2),
            chosen="a — cat",
            rejected="",
            images=(elsewhere, buffer.getvalue()),
            margin=margin,
            source="policy",
        )
        for number, margin in enumerate((None, 0.5))
    ]
    path = write_preference_rows(rows, tmp_path / "out" / "pairs.jsonl")
    problems: list[str] = []
    read = [row for _, row in read_preference_rows(path, problems)]
    assert problems == []
    for row, original in zip(read, rows, strict=True):
        for name in ("sample_id", "task", "prompt", "chosen", "rejected", "margin", "source"):
            assert getattr(row, name) == getattr(original, name)
        assert [load_image(image).getpixel((0, 0)) for image in row.images] == [(200, 30, 30), (0, 0, 255)]
    assert len(list((tmp_path / "out/images").iterdir())) == 2
    assert write_preference_rows(rows, path) == path
