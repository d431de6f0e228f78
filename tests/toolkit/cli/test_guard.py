from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from toolkit.cli.guard import guarded


def test_a_path_that_cannot_be_used_is_told_without_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    code = guarded(lambda: (tmp_path / "file" / "below").mkdir() or 0)
    err = capsys.readouterr().err
    assert code == 2
    assert err.startswith(f"error: {tmp_path}/file/below: cannot be used: Not a directory\n  remedy: ")
    assert "Traceback" not in err


def test_a_full_disk_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    def write() -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/x")

    assert guarded(write) == 1
    assert "error: out/x: No space left on device\n  remedy: free some space" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [OSError("odd"), ConnectionResetError(errno.ECONNRESET, "reset"), KeyError("x")]
)
def test_a_fault_of_the_program_shows_its_traceback(
    error: Exception, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    monkeypatch.setattr(logging.getLogger("vlm_rlhf"), "propagate", True)

    def fail() -> int:
        raise error

    assert guarded(fail) == 1
    assert "Traceback" in caplog.text
