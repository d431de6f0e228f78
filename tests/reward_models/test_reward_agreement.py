# ruff: noqa: E501 - rows are shown whole
"""The benchmark of learned rewards against experts, on judgements and photographs made up here."""

import gzip
import importlib.util
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    path = BENCHMARKS / "reward_agreement.py"
    spec = importlib.util.spec_from_file_location("reward_agreement", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path, pictures):
    (tmp_path / "human").mkdir()
    (tmp_path / "flickr8k").mkdir()
    references = {f"{name}.png": [f"a {name} picture", f"everything is {name}"] for name in pictures}
    rows = [
        {"image": f"{name}.png", "caption": f"{other} is the colour here", "scores": [3 + (other == name)] * 2 + [1 + 2 * (other == name)]}
        for name in pictures
        for other in pictures
    ]  # fmt: skip
    rows.append({"image": "gone.png", "caption": "x", "scores": [1, 1, 1]})
    (tmp_path / "flickr8k/captions.json.gz").write_bytes(gzip.compress(json.dumps(references).encode()))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "human/flickr8k_expert.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return tmp_path


def test_cider_the_reward_and_their_sum(benchmark, data, pictures, saved_reward, capsys, monkeypatch):
    folder = next(iter(pictures.values())).parent
    words = ["x", "--data", str(data), "--images", str(folder), "--reward", str(saved_reward), "--json"]
    monkeypatch.setattr(sys, "argv", words)
    assert benchmark.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["captions"], found["photographs"]) == (16, 4)
    assert set(found["tau"]) == {"cider", "learned", "composite"}
    assert found["tau"]["cider"]["tau"] > 50  # the right colour is in the references
    assert all(tau["low"] <= tau["tau"] <= tau["high"] for tau in found["tau"].values())

    only = data / "val.jsonl"
    only.write_text('{"image_id": "red.png"}\n{"image_id": "blue.png"}\n')
    monkeypatch.setattr(sys, "argv", [*words[:-1], "--only", str(only)])
    assert benchmark.main() == 0
    assert capsys.readouterr().out.startswith("8 captions of 2 photographs, tau-c x 100\n")
