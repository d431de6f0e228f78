"""The page of an iteration's samples: self-contained, escaped, and never a reason for a run to end."""

from __future__ import annotations

import base64
import io
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from toolkit.rl.sample_page import PAGE_FILE, sample_page, sample_table, show_samples, thumbnails
from toolkit.runs.trackers import Trackers


def sample(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "sample_id": "scene-1",
        "prompt": "Describe <b>it</b>.",
        "completion": "a <script>alert(1)</script> & more",
        "ended": False,
        "tokens": 7,
        "references": ["a red | circle"],
        "score": 0.4375,
        "kl_nats": 0.25,
        "parts": {
            "cider": 1.5,
            "cider/normalised": -0.5,
            "cider/weighted": -0.125,
            "mine.py:vqa": float("nan"),
            "mine.py:vqa/normalised": float("nan"),
            "mine.py:vqa/weighted": float("nan"),
            "total/calibrated": 0.75,
        },
    }
    return values | changes


def picture(folder: Path, colour: str, size: tuple[int, int]) -> Path:
    path = folder / f"{colour}.png"
    Image.new("RGB", size, colour).save(path)
    return path


def encoded(path: Path) -> bytes:
    return path.read_bytes()


def shown(page: str) -> list[Image.Image]:
    data = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in data]


def test_the_page_holds_pictures_of_paths_and_of_bytes_and_every_number(tmp_path: Path) -> None:
    red, blue = picture(tmp_path, "red", (640, 320)), picture(tmp_path, "blue", (20, 30))
    images = [(red, encoded(blue)), (tmp_path / "gone.png",), ()]
    show_samples(tmp_path, 12, [sample(), sample(ended=True), sample(completion="")], images)
    page = (tmp_path / PAGE_FILE).read_text(encoding="utf-8")
    first, second = shown(page)
    assert (first.size, second.size) == ((128, 64), (20, 30))
    assert first.convert("RGB").getpixel((60, 30))[0] > 240  # type: ignore[index]
    assert second.convert("RGB").getpixel((5, 5)) == (0, 0, 255)
    assert page.count("cannot be read") == 1
    assert page.count("no picture") == 1
    assert "Iteration 12: 3 completions" in page
    for text in ("1.500", "−0.500", "−0.125", "0.438", "0.250"):
        assert text in page
    assert page.count("cut off") == 2
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_a_card_lists_the_terms_that_apply_and_no_sum_of_them() -> None:
    page = sample_page(1, [sample()], [[]])
    assert re.findall(r"<tr><th>([^<]+)</th>", page) == ["cider"]
    assert "calibrated" not in page
    assert page.count("<colgroup>") == 1


def test_a_term_that_failed_stays_on_its_card() -> None:
    failed = sample_page(1, [sample(score=float("nan"))], [[]])
    assert "<th>mine.py:vqa</th><td>–</td><td>–</td><td>–</td>" in failed
    assert "<th>cider</th>" in failed
    assert "calibrated" not in failed


def test_what_models_and_data_say_is_text_never_markup(tmp_path: Path) -> None:
    text = "</style><script>x</script>"
    odd = sample(prompt=text, completion=text, sample_id=text, references=[text], parts={text: 1.0})
    page = sample_page(1, [odd], [[]])
    assert "<script" not in page
    assert page.count("&lt;script&gt;x") == 5


def test_only_the_newest_page_is_kept(tmp_path: Path) -> None:
    for step in (1, 2):
        show_samples(tmp_path, step, [sample()], [()])
    assert [path.name for path in tmp_path.iterdir()] == [PAGE_FILE]
    assert "Iteration 2:" in (tmp_path / PAGE_FILE).read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / PAGE_FILE).mkdir()
    (tmp_path / PAGE_FILE / "file").touch()
    with caplog.at_level(logging.WARNING, "vlm_rlhf.rl"):
        show_samples(tmp_path, 1, [sample()], [()], Trackers([]))
    assert [PAGE_FILE in record.message for record in caplog.records] == [True]


def test_a_picture_is_read_once_for_all_samples_of_its_prompt(tmp_path: Path) -> None:
    red = picture(tmp_path, "red", (10, 10))
    ((one,), (two,)) = thumbnails([(red,), (red,)])
    assert one is two
    assert one is not None


def test_the_table_of_the_trackers_has_a_column_a_part_and_nothing_for_what_failed() -> None:
    first = sample(parts={"cider": 1.0, "total/calibrated": 0.5})
    table = sample_table([first, sample(parts={"vqa": float("nan")})], [None, None])
    assert table.columns == ["prompt", "completion", "total", "kl_nats", "ended", "tokens", "cider", "vqa"]
    assert [list(row[2:]) for row in table.rows] == [
        [0.4375, 0.25, False, 7, 1.0, None],
        [0.4375, 0.25, False, 7, None, None],
    ]
