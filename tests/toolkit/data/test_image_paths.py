"""No name in a data file leads out of its folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.data.images import resolve_image
from toolkit.errors import DataError


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd", "absolute path"),
        ("C:\\secret.png", "absolute path"),
        ("\\\\host\\share\\a.png", "absolute path"),
        ("../a.png", "'..' in the path"),
        ("images/../../a.png", "'..' in the path"),
        ("images\\..\\..\\a.png", "'..' in the path"),
        ("", "empty name"),
        ("  ", "empty name"),
        (".", "names the folder itself"),
        ("a\0.png", "no usable path"),
    ],
)
def test_refused_names(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        resolve_image(tmp_path, name)
    assert reason in caught.value.problems[0]
    assert caught.value.exit_code == 2
    assert "copy the pictures into the folder" in str(caught.value)


def test_symlinks_must_stay_inside(tmp_path: Path) -> None:
    folder, outside = tmp_path / "data", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "a.png").touch()
    (folder / "inner.png").touch()
    (folder / "file.png").symlink_to(outside / "a.png")
    (folder / "dir").symlink_to(outside)
    (folder / "ok.png").symlink_to("inner.png")
    for name in ("file.png", "dir/a.png"):
        with pytest.raises(DataError, match="leads out of its folder"):
            resolve_image(folder, name)
    assert resolve_image(folder, "ok.png") == (folder / "inner.png").resolve()


def test_symlinks_in_a_circle_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    try:
        path = resolve_image(tmp_path, "loop/a.png")
    except DataError:
        return
    assert path.is_relative_to(tmp_path.resolve())
    assert not path.exists()


def test_a_symlinked_root_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert resolve_image(tmp_path / "link", "a.png") == (tmp_path / "real" / "a.png").resolve()


_SEGMENTS = st.one_of(
    st.sampled_from(["..", ".", "", "out", "up", "images", "a.png", "C:", "~", "%2e%2e", "..\\..", " .. "]),
    st.text(max_size=6),
)


@given(segments=st.lists(_SEGMENTS, min_size=1, max_size=6), separator=st.sampled_from(["/", "\\", "//"]))
def test_resolved_paths_stay_inside(segments: list[str], separator: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "data")
        (folder / "images").mkdir(parents=True)
        (folder / "out").symlink_to("/")
        (folder / "up").symlink_to("..")
        try:
            path = resolve_image(folder, separator.join(segments))
        except DataError:
            return
        root = folder.resolve()
        assert path != root
        assert path.resolve().is_relative_to(root)
