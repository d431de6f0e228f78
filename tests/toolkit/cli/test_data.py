"""`vlm-rlhf data`: summary on stdout, problems on stderr, exit codes 0 and 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.cli.main import main


def test_sample_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "sample", "--out", str(tmp_path), "--rows", "3", "--seed", "5"]) == 0
    assert f"train: 3 images in {tmp_path}/train\n" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path), "--kind", "vqa"]) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("no problems found\n")
    assert "  pictures      3\n" in captured.out


def test_one_split_of_unseen_combinations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "sample", "--out", str(tmp_path), "--rows", "2", "--combinations", "unseen"]
    assert main([*words, "--split", "test"]) == 0
    assert (tmp_path / "scenes.jsonl").is_file()
    assert main(words) == 2
    assert "add: --split test" in capsys.readouterr().err


def test_problems_exit_with_2_and_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "captions.json").write_text(json.dumps({"a.png": ["x"], "/b.png": ["y"], "c.png": [""]}))
    assert main(["data", "check", str(tmp_path), "--kind", "caption"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3 problems" in captured.err
    assert "a.png: no such file" in captured.err
    assert "'/b.png': absolute path" in captured.err
    assert "caption 1 is empty" in captured.err
    assert "remedy:" in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "x"], "--kind"),
        (["check", "x", "--kind", "poem"], "invalid choice: 'poem'"),
        (["sample", "--out", "x", "--rows", "0"], "'0': expected a whole number of at least 1"),
        (["sample", "--out", "x", "--rows", "many"], "'many': expected a whole number of at least 1"),
        (["sample"], "--out"),
        ([], "COMMAND"),
    ],
)
def test_wrong_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *words]) == 2
    assert message in capsys.readouterr().err
