from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.config.loading import parse_recipe
from toolkit.runs import inputs
from toolkit.runs.diagnosis import diagnose
from toolkit.runs.inputs import folder_digest, input_digests, input_files, model_facts
from toolkit.runs.logging import setup_logging


def test_telemetry_is_off_and_what_the_user_set_stays() -> None:
    code = (
        "import json, os\nfrom toolkit.runs.offline import quiet_environment\nquiet_environment()\n"
        "print(json.dumps(dict(os.environ)))"
    )
    clean = {"PATH": "", "PYTHONPATH": ":".join(sys.path), "WANDB_MODE": "online"}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    environment = json.loads(done.stdout)
    assert environment["WANDB_MODE"] == "online"
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "DISABLE_TELEMETRY"):
        assert environment[name] == "1"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["TOKENIZERS_PARALLELISM"] == "false"


def test_logs_go_to_stderr_once(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("vlm_rlhf")
    before = (logger.level, logger.propagate, list(logger.handlers))
    setup_logging()
    setup_logging()
    logging.getLogger("vlm_rlhf.test").info("hello")
    setup_logging(rank=1)
    logging.getLogger("vlm_rlhf.test").info("not shown")
    logging.getLogger("vlm_rlhf.test").warning("from a rank")
    captured = capsys.readouterr()
    logger.level, logger.propagate, logger.handlers = before
    assert captured.out == ""
    assert [line[9:] for line in captured.err.splitlines()] == ["I hello", "[rank 1] W from a rank"]


def test_a_folder_digest_sees_names_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.PNG").write_bytes(b"1")
    (tmp_path / "notes.txt").write_text("not counted")
    first = folder_digest(tmp_path)
    (tmp_path / "a" / "x.PNG").write_bytes(b"2")
    second = folder_digest(tmp_path)
    assert (first["files"], first["bytes"], first["of"]) == (1, 1, "contents")
    assert first["sha256"] != second["sha256"]
    monkeypatch.setattr(inputs, "_FULL_DIGEST_BYTES", 0)
    assert folder_digest(tmp_path)["of"] == "names and sizes"


def test_every_input_of_a_recipe_is_named() -> None:
    recipe = parse_recipe({
        "stage": "eval",
        "systems": [{"name": "a", "model": {"id": "x/y"}}],
        "data": {"root": "d", "test": [
            {"kind": "vqa", "questions": "q.json", "annotations": "a.json", "images": "i"},
            {"kind": "rows", "file": "r.jsonl"},
        ]},
        "scenes": "s.jsonl", "preference_pairs": ["p.jsonl"], "train_references": "t.json",
        "run": {"output_dir": "o"},
    })  # fmt: skip
    files, folders = input_files(recipe)
    assert [str(path) for path in files] == [
        "d/q.json",
        "d/a.json",
        "d/r.jsonl",
        "t.json",
        "s.jsonl",
        "p.jsonl",
    ]
    assert [str(path) for path in folders] == ["d/i"]


@pytest.mark.parametrize(("stage", "field"), [("rl", "rewards"), ("preferences", "rank_by")])
def test_files_of_reward_terms_are_inputs_relative_to_the_current_folder(
    in_tmp_path: Path, stage: str, field: str
) -> None:
    Path("d").mkdir()
    for name in ("rw.py", "d/rw.py", "objects.json"):
        Path(name).write_text(name)
    recipe = parse_recipe({
        "stage": stage,
        "model": {"id": "x/y"},
        "data": {"root": "d", "train": [{"kind": "rows", "file": "r.jsonl"}]},
        field: [
            {"term": "rw.py:f", "options": {"objects": "not a file"}},
            {"term": "math:floor"},
            {"term": "cider", "options": {"document_frequencies": "df.safetensors"}},
            {"term": "chair", "options": {"objects": "objects.json", "synonyms": "synonyms.txt"}},
        ],
        "run": {"output_dir": "o"},
    })  # fmt: skip
    files, _ = input_files(recipe)
    named = ["d/r.jsonl", "rw.py", "df.safetensors", "objects.json", "synonyms.txt"]
    assert [str(path) for path in files] == named
    before = input_digests(recipe, None)
    assert set(before) == {"rw.py", "objects.json"}
    Path("rw.py").write_text("changed")
    assert input_digests(recipe, None)["rw.py"] != before["rw.py"]


def test_an_adapter_brings_its_base_along(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(b"w")
    (tmp_path / "adapter").mkdir()
    config = {"base_model_name_or_path": str(tmp_path / "base"), "revision": None}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    recipe = parse_recipe({
        "stage": "preference",
        "model": {"id": str(tmp_path / "adapter")},
        "data": {"root": "d", "train": [{"kind": "rows", "file": "r.jsonl"}]},
        "run": {"output_dir": "o"},
    })  # fmt: skip
    facts = model_facts(recipe)["model"]
    assert facts["base"]["id"] == str(tmp_path / "base")
    assert len(facts["base"]["weights"]["model.safetensors"]) == 64


@pytest.mark.slow
def test_the_diagnosis_looks_at_everything() -> None:
    names = {finding.name: finding for finding in diagnose()}
    assert {"torch", "java", "disk", "torchvision", "devices", "OpenMP", "tiny VLM"} <= set(names)
    assert names["torch"].status == "ok"
    assert all(finding.found for finding in names.values())


def test_a_broken_torchvision_fails_the_diagnosis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.runs import diagnosis

    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    finding = diagnosis._torchvision()
    assert finding.status == "fail"
    assert finding.found == "operator torchvision::nms does not exist"
    assert "pip uninstall torchvision" in finding.remedy
