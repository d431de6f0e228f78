"""predict, eval, compare and report through the command line: output, exit codes, JSON alone on stdout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.cli.main import main
from toolkit.config.schema import TinyArchitecture


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from toolkit.models.families.llava import build_tiny_llava

    torch.set_num_threads(1)
    architecture = TinyArchitecture(
        vision_hidden=64,
        vision_layers=1,
        vision_heads=2,
        vision_mlp=64,
        text_hidden=64,
        text_layers=1,
        text_heads=2,
    )
    folder = tmp_path_factory.mktemp("tiny")
    model, processor = build_tiny_llava(
        architecture, texts=["a red circle", "Describe the image."] * 20, seed=0
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from toolkit.data.scenes.writing import write_sample

    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, seed=1, rows=6)
    return folder


def test_predict_says_something(checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(next((data / "test" / "images").iterdir()))
    words = ["predict", str(checkpoint), "--image", image, "--prompt", "what is it?", "--max-new-tokens", "4"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert main([*words, "--image", image, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["predictions"]
    assert [entry["image"] for entry in told] == [image, image]
    assert told[0]["num_tokens"] <= 4


def test_predict_refuses_what_is_no_image_or_no_checkpoint(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "x.jpg"
    broken.write_text("no picture")
    assert main(["predict", str(checkpoint), "--image", str(broken), "--prompt", "x"]) == 2
    assert "x.jpg" in capsys.readouterr().err
    image = str(next((data / "test" / "images").iterdir()))
    assert main(["predict", str(tmp_path), "--image", image, "--prompt", "x"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_eval_compare_and_report_in_a_row(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", str(checkpoint), "--benchmark", "sample", "--data", str(data)]
    assert main([*words, "--limit", "4", "--out", str(tmp_path / "a")]) == 0
    table = capsys.readouterr().out
    assert "human" in table
    assert "summary.json" in table
    assert main([*words, "--limit", "4", "--out", str(tmp_path / "b"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["benchmark"] == "sample"
    assert summary["checkpoint"] == str(checkpoint)
    assert {"decoding", "caption_prompt", "caption_tokenizer", "vqa_rule", "version"} <= summary[
        "protocol"
    ].keys()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json", "--resamples", "10"]) == 0
    scores = json.loads(capsys.readouterr().out)["comparisons"][0]["scores"]
    assert scores["cider"]["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert main(["report", str(tmp_path / "a")]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_eval_again_with_other_settings_in_the_same_folder_is_refused(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "eval",
        str(checkpoint),
        "--benchmark",
        "sample",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "a"),
    ]
    assert main([*words, "--limit", "2"]) == 0
    assert main([*words, "--limit", "2"]) == 0
    capsys.readouterr()
    assert main([*words, "--limit", "3"]) == 2
    assert "limit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["eval", "x", "--benchmark", "cocoo", "--data", "."], "did you mean 'coco'"),
        (["eval", "x", "--benchmark", "coco", "--data", ".", "--limit", "0"], "--limit"),
        (["eval", "x", "--benchmark", "coco", "--data", ".", "--processes", "0"], "--processes"),
        (["compare", "none", "none"], "no results here"),
        (["compare", "a", "b", "--resamples", "0"], "--resamples"),
        (["report", "none"], "no run here"),
        (["report", ".", "--samples", "-1"], "--samples"),
        (
            ["predict", "x", "--image", "none.png", "--prompt", "x", "--max-new-tokens", "0"],
            "--max-new-tokens",
        ),
        (["predict", "x", "--image", "none.png", "--prompt", "x"], "none.png"),
    ],
)
def test_mistakes_end_with_2_and_one_clear_message(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert told in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_missing_checkpoint_leaves_nothing_behind(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "eval"
    words = ["eval", str(tmp_path / "none"), "--benchmark", "sample", "--data", str(data), "--out", str(out)]
    assert main(words) == 2
    assert "none" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.distributed
def test_eval_with_two_processes_says_what_one_says(
    checkpoint: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", str(checkpoint), "--benchmark", "sample", "--data", str(data), "--limit", "4", "--json"]
    told = []
    for processes in ("1", "2"):
        assert main([*words, "--out", str(tmp_path / processes), "--processes", processes]) == 0
        told.append(json.loads(capfd.readouterr().out))  # one object and nothing else
    assert told[0] == told[1]
    assert told[0] == json.loads((tmp_path / "2" / "summary.json").read_text(encoding="utf-8"))
    assert main([*words[:-2], "3", "--out", str(tmp_path / "2"), "--processes", "2"]) == 2
    assert "limit" in capfd.readouterr().err
