# ruff: noqa: E501 - messages are shown whole
"""What a user may get wrong, through the real commands: one clear message, exit code 2, nothing left behind."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from recipes.preference import main as preference_main
from recipes.sft import main as sft_main
from toolkit.cli.main import main
from toolkit.data.scenes.writing import write_sample

SFT = """\
stage: sft
model:
  id: adapter
data:
  root: data
  train:
    - {kind: caption, captions: train/captions.json, images: train/images}
trainer: {max_steps: 2}
run: {output_dir: out/new/sft}
"""
PAIRS = """\
stage: preference
model: {id: adapter}
data: {root: data, train: [{kind: rows, file: train/pairs.jsonl}]}
run: {output_dir: out/new/dpo}
"""
RL = """\
stage: rl
model: {id: adapter}
data: {root: data, train: [{kind: caption, captions: train/captions.json, images: train/images}]}
rewards:
  - {term: learned}
run: {output_dir: out/new/rl}
"""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sample of the scenes."""
    folder = tmp_path_factory.mktemp("sample") / "data"
    write_sample(folder, seed=0, rows=6)
    return folder


@pytest.fixture
def folder(in_tmp_path: Path, sample: Path) -> Path:
    """Data, recipes and the configuration of an adapter; the current directory."""
    shutil.copytree(sample, in_tmp_path / "data")
    (in_tmp_path / "adapter").mkdir()
    (in_tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    for name, text in (("sft", SFT), ("dpo", PAIRS), ("rl", RL)):
        (in_tmp_path / f"{name}.yaml").write_text(text)
    return in_tmp_path


def told(capfd: pytest.CaptureFixture[str], code: int) -> str:
    """The one message of a refused command."""
    captured = capfd.readouterr()
    assert code == 2
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert captured.err.count("error: ") == 1
    assert "\x1b" not in captured.err
    assert not Path("out").exists()
    return captured.err


# ---- recipes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("max_steps", "max_stepz"), "sft.yaml:8  trainer.max_stepz: expected an option of SFTConfig, found an unknown key; did you mean 'max_steps'?"),
        (("root:", "rot:"), "sft.yaml:5  data.rot: expected one of the keys"),
        (("stage: sft", "stage: sfft"), "sft.yaml:1  stage: expected one of pretrain, judging, sft, preferences, reward, rl, preference, eval, report, pipeline, found 'sfft'; did you mean 'sft'?"),
        (("max_steps: 2", "max_steps: many"), "sft.yaml:8  trainer.max_steps: expected a whole number, found 'many'"),
        (("out/new/sft}", "out/new/sft, seed: [1]}"), "sft.yaml:9  run.seed: expected a whole number, found"),
        (("  id: adapter", "  id: adapter\n  id: base"), "sft.yaml:4  id: repeated key, first written on line 3; keep one"),
        (("captions.json", "gone.json"), "sft.yaml:7  data.train.0.captions: expected a file, found nothing at 'data/train/gone.json'"),
        (("id: adapter", "id: data"), "sft.yaml:3  model.id: expected a model or adapter, 'data' has no config.json or adapter_config.json"),
        (("id: adapter", "id: out/base/final"), "model.id: expected a model directory, found nothing at 'out/base/final'; first copy the model that comes along: mkdir -p out/base/final && cp -r "),
        (("id: adapter", "id: out/other/final"), "model.id: expected a model directory, found nothing at 'out/other/final'; first run the stage that writes it: vlm-rlhf run RECIPE run.output_dir=out/other"),
        (("id: adapter", "id: out/new/dpo/final"), "found nothing at 'out/new/dpo/final'; first run: vlm-rlhf run dpo.yaml"),
    ],
)  # fmt: skip
def test_a_wrong_recipe(
    folder: Path, capfd: pytest.CaptureFixture[str], change: tuple[str, str], message: str
) -> None:
    text = SFT.replace(*change, 1)
    assert text != SFT
    (folder / "sft.yaml").write_text(text)
    for command in (["check", "sft.yaml"], ["run", "sft.yaml"], ["run", "sft.yaml", "--dry-run"]):
        assert message in told(capfd, main(command))
    assert message in told(capfd, sft_main(["sft.yaml"]))


def test_everything_wrong_with_a_recipe_is_told_at_once(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = SFT.replace("root:", "rot:").replace("max_steps", "max_stepz") + "stage: sft\n"
    (folder / "sft.yaml").write_text(text)
    message = told(capfd, main(["check", "sft.yaml"]))
    assert message.startswith("error: sft.yaml: 4 problems\n")  # data.rot, data.root missing, both keys below
    assert "repeated key" in message
    assert "data.rot" in message
    assert "trainer.max_stepz" in message


def test_a_reward_term_without_its_model(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = told(capfd, main(["run", "rl.yaml"]))
    assert (
        "rl.yaml:5  rewards.0.model: expected the directory of a reward model (a learned term needs one), found nothing"
        in message
    )


# ---- data ------------------------------------------------------------------------------------------------------


def captions(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def corrupt(folder: Path) -> None:
        path = folder / "captions.json"
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return corrupt


def picture(write: Callable[[Path], object]) -> Callable[[Path], None]:
    return lambda folder: write(sorted((folder / "images").iterdir())[0]) and None


def line(text: str) -> Callable[[Path], None]:
    def corrupt(folder: Path) -> None:
        path = folder / "pairs.jsonl"
        lines = path.read_text().splitlines()
        lines[1] = text
        path.write_text("\n".join(lines))

    return corrupt


ROW = {"sample_id": "x", "prompt": "p", "images": ["images/000001000000.png"], "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (picture(Path.unlink), r"image id 1000000: .*000001000000\.png: no such file"),
        (picture(lambda path: path.write_bytes(path.read_bytes()[:90])), r"image id 1000000: .*\.png: truncated or damaged image"),
        (picture(lambda path: path.write_text("no image")), r"image id 1000000: .*\.png: not an image file \(expected PNG"),
        (picture(lambda path: Image.new("1", (8000, 6300)).save(path)), r"8000 x 6300 = 50\.4 megapixels, over 50 megapixels; scale it down"),
        (captions(lambda d: d["images"][0].update(file_name="../x.png")), r"image id 1000000: picture '\.\./x\.png': '\.\.' in the path; expected a path inside data/train/images"),
        (captions(lambda d: d["images"][0].update(file_name="/etc/hosts")), r"picture '/etc/hosts': absolute path; expected a path inside"),
        (captions(lambda d: d["images"][0].update(file_name="\x1b[2J.png")), r"\\x1b\[2J\.png: no such file"),
        (captions(lambda d: d["images"].append(d["images"][1])), r"captions\.json: images entry 7: duplicate image id '1000001'; keep one entry"),
        (captions(lambda d: d["annotations"][0].update(caption=" \t")), r"caption 1 is empty; write it or remove it"),
        (lambda folder: (folder / "captions.json").write_text('{"images": [\n{]'), r"captions\.json:2: malformed JSON in column 2"),
    ],
)  # fmt: skip
def test_wrong_captions(
    folder: Path, capfd: pytest.CaptureFixture[str], corrupt: Callable[[Path], None], message: str
) -> None:
    corrupt(folder / "data" / "train")
    assert re.search(message, told(capfd, sft_main(["sft.yaml"])))
    assert re.search(message, told(capfd, main(["data", "check", "data/train", "--kind", "caption"])))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": ', "pairs.jsonl:2: malformed JSON in column 12"),
        ("[1]", "pairs.jsonl:2: expected a JSON object, found list '[1]'"),
        (json.dumps(ROW | {"rejected": "a"}), "pairs.jsonl:2: 'chosen' and 'rejected' are the same text 'a'; remove the row"),
        (json.dumps(ROW | {"chosen": "\x1b[31m", "rejected": "\x1b[31m"}), r"are the same text '\x1b[31m'"),
        (json.dumps(ROW | {"images": ["../../x.png"]}), "pairs.jsonl:2: picture '../../x.png': '..' in the path"),
        (json.dumps({key: ROW[key] for key in ("prompt", "images", "rejected")}), "pairs.jsonl:2: no 'chosen'"),
    ],
)  # fmt: skip
def test_wrong_pairs(folder: Path, capfd: pytest.CaptureFixture[str], text: str, message: str) -> None:
    line(text)(folder / "data" / "train")
    assert message in told(capfd, preference_main(["dpo.yaml"]))
    assert message in told(capfd, main(["data", "check", "data/train", "--kind", "preference"]))


def test_wrong_data_stop_every_stage_before_torch_is_imported(folder: Path) -> None:
    (folder / "reward").mkdir()
    (folder / "reward" / "reward_config.json").write_text("{}")
    captions(lambda values: values["annotations"][0].update(caption=""))(folder / "data" / "train")
    line("{")(folder / "data" / "train")
    shutil.copy(folder / "data" / "train" / "captions.json", folder / "data" / "test" / "captions.json")
    source = "{kind: caption, captions: train/captions.json, images: train/images}"
    (folder / "reward.yaml").write_text(PAIRS.replace("stage: preference", "stage: reward"))
    (folder / "preferences.yaml").write_text(
        f"stage: preferences\nmodel: {{id: adapter}}\ndata: {{root: data, train: [{source}]}}\n"
        "scenes: [train/scenes.jsonl]\nrun: {output_dir: out/preferences}\n"
    )
    (folder / "eval.yaml").write_text(
        f"stage: eval\nsystems: [{{name: sft, model: {{id: adapter}}}}]\ndata: {{root: data, test: [{source}]}}\n"
        "reward_model: reward\nrun: {output_dir: out/eval}\n"
    )
    code = (
        "import importlib, sys\n"
        "stages = {'sft': 'sft', 'preference': 'dpo', 'reward': 'reward', 'preferences': 'preferences', 'eval': 'eval', 'rl': 'rl'}\n"
        "extra = {'rl': ['rewards.0.term=cider']}\n"
        "for stage, name in stages.items():\n"
        "    code = importlib.import_module(f'recipes.{stage}').main([f'{name}.yaml', *extra.get(stage, [])])\n"
        "    print(stage, code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    stages = ("sft", "preference", "reward", "preferences", "eval", "rl")
    assert done.stdout.splitlines() == [f"{stage} 2 False" for stage in stages], done.stderr
    assert not Path("out").exists()


# ---- checkpoints, commands, paths ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "data", "--image", "IMAGE"], "model.id: data is no checkpoint: it has neither config.json nor adapter_config.json"),
        (["predict", "sft.yaml", "--image", "IMAGE"], "model.id: sft.yaml is a file"),
        (["predict", "adapter", "--image", "gone.png"], "gone.png: no such file"),
        (["predict", "adapter", "--image", "sft.yaml"], "sft.yaml: not an image file"),
        (["eval", "data", "--benchmark", "sample", "--data", "data/test"], "model.id: data is no checkpoint"),
        (["eval", "adapter", "--benchmark", "sampel", "--data", "data/test"], "there is no benchmark 'sampel'; did you mean 'sample'?"),
        (["data", "sample", "--out", "sft.yaml", "--rows", "2"], "sft.yaml/train/images: cannot be used: Not a directory"),
        (["data", "check", "gone", "--kind", "caption"], "gone: 1 problem\n  no such file or folder\n  remedy: check the path"),
        (["report", "gone"], "gone: 1 problem\n  no run here"),
        (["run", "sft.yaml", "run.output_dir=data"], "data is not empty and holds no run"),
        (["run", "sft.yaml", "run.output_dir=sft.yaml"], "sft.yaml is a file, expected a run directory"),
    ],
)  # fmt: skip
def test_wrong_words(folder: Path, capfd: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    image = str(sorted((folder / "data/test/images").iterdir())[0])
    assert message in told(capfd, main([image if word == "IMAGE" else word for word in words]))
