"""METEOR through its jar, and what happens where Java or jars are missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from toolkit.errors import DataError, EnvironmentLacking, RunFailed, UsageError
from toolkit.metrics import java
from toolkit.metrics.java import java_metric


@pytest.mark.java
@pytest.mark.slow
@pytest.mark.parametrize("blank", [False, True])
def test_meteor_equals_the_official_wrapper(official, tmp_path: Path, monkeypatch, blank: bool):
    folder = Path(pytest.importorskip("pycocoevalcap.meteor.meteor").__file__).parent
    if blank:
        (tmp_path / "with blank").mkdir()
        moved = tmp_path / "with blank" / "meteor"
        shutil.copytree(folder, moved, copy_function=lambda source, target: Path(target).symlink_to(source))
        monkeypatch.setattr(java, "_folder", lambda name: moved)
    corpus, per_image = java_metric("meteor", official["references"], official["results"])
    assert corpus == pytest.approx(official["scores"]["corpus"]["meteor"], rel=1e-9)
    for image_id, value in per_image.items():
        assert value == pytest.approx(
            official["scores"]["per_image"][image_id]["meteor"], rel=1e-9, abs=1e-12
        )


def test_java_missing(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EnvironmentLacking, match="meteor needs Java") as caught:
        java_metric("meteor", {1: ["a"]}, {1: "a"})
    assert caught.value.exit_code == 3
    assert caught.value.remedy


@pytest.mark.java
def test_spice_never_fetches_its_jars(tmp_path: Path, monkeypatch):
    pytest.importorskip("pycocoevalcap.bleu.bleu")
    monkeypatch.delenv("VLM_RLHF_SPICE_JARS", raising=False)
    for folder in (None, tmp_path):
        with pytest.raises(EnvironmentLacking, match="stanford-corenlp"):
            java_metric("spice", {1: ["a"]}, {1: "a"}, spice_jars=folder)


@pytest.mark.java
def test_a_failing_program_is_quoted(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(java, "_folder", lambda name: tmp_path)
    with pytest.raises(RunFailed, match=r"meteor-1\.5\.jar"):
        java_metric("meteor", {1: ["a"]}, {1: "a"})


def test_wrong_calls():
    with pytest.raises(UsageError, match="rouge"):
        java_metric("rouge", {1: ["a"]}, {1: "a"})
    with pytest.raises(DataError):
        java_metric("meteor", {1: ["a"]}, {2: "a"})
