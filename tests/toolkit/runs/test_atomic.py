from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.runs.atomic import atomic_directory, atomic_write_text, remove_leftovers


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    atomic_write_text(path, "one\n")
    atomic_write_text(path, "zwei ü\n")
    assert path.read_bytes() == "zwei ü\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_appears_when_its_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-3"
    with atomic_directory(path) as folder:
        (folder / "weights").write_text("new")
        assert not path.exists()
    assert (path / "weights").read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_the_former_one(tmp_path: Path) -> None:
    path = tmp_path / "final"
    for text in ("old", "new"):
        with atomic_directory(path) as folder:
            (folder / text).write_text(text)
    assert [file.name for file in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_an_exception_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "final"
    with atomic_directory(path) as folder:
        (folder / "old").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_directory(path) as folder:
        (folder / "gone" / "half").write_text("half")
    assert [file.name for file in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_while_writing_leaves_a_leftover_that_is_removed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom toolkit.runs.atomic import atomic_directory\n"
        "with atomic_directory(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "checkpoint-3"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    assert len(remove_leftovers(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_caught_between_two_renames_is_put_back(tmp_path: Path) -> None:
    (tmp_path / ".final.old-1").mkdir()
    (tmp_path / ".final.old-1" / "weights").write_text("old")
    (tmp_path / ".final.tmp-1").mkdir()
    (tmp_path / f".mine.tmp-{os.getpid()}").mkdir()
    remove_leftovers(tmp_path)
    assert (tmp_path / "final" / "weights").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".mine.tmp-{os.getpid()}", "final"]
