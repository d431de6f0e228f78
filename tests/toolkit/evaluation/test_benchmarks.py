"""Benchmark files: all of them load, find their data where users keep them, and say where they looked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from toolkit.config.schema import CaptionSource, VqaSource
from toolkit.data.sources import load_prompt_rows
from toolkit.errors import DataError, RecipeError, UsageError
from toolkit.evaluation.benchmarks import benchmark_names, load_benchmark, locate
from toolkit.evaluation.single import benchmark_recipe, system_name

from .conftest import IMAGES


def test_those_that_come_along() -> None:
    assert set(benchmark_names()) == set(
        "coco coco_karpathy flickr30k flickr8k gqa nlvr nocaps okvqa pope sample textvqa vizwiz vqav2 vsr".split()
    )
    for name in benchmark_names():
        benchmark = load_benchmark(name)
        assert benchmark.captions is not None or benchmark.vqa is not None
        for preset in benchmark.presets:
            assert benchmark.with_preset(preset) != benchmark


def test_presets_replace_prompt_tokens_and_rule() -> None:
    coco = load_benchmark("coco").with_preset("lmms")
    assert coco.captions is not None
    assert coco.captions.prompt == "Provide a one-sentence caption for the provided image."
    assert coco.decoding.max_new_tokens == 64
    textvqa = load_benchmark("textvqa").with_preset("lmms")
    assert textvqa.vqa is not None
    assert (textvqa.vqa.rule, textvqa.vqa.capitalise) == ("textvqa", True)
    assert textvqa.vqa.suffix == "\nAnswer the question using a single word or phrase."
    with pytest.raises(UsageError, match="there are none"):
        load_benchmark("vsr").with_preset("lmms")


PUBLISHED = {
    "pope": (
        "coco_pope_random.json",
        '{"question_id": 1, "image": "1.jpg", "text": "Is there a dog?", "label": "no"}\n',
    ),
    "vsr": (
        "test.jsonl",
        '{"image": "1.jpg", "caption": "The dog is left.", "label": 0, "relation": "left"}\n',
    ),
    "nlvr": ("dev.jsonl", '{"image": "1.jpg", "sentence": "There is a box.", "label": "false"}\n'),
    "gqa": (
        "testdev_balanced_questions.json",
        '{"7": {"imageId": "1", "question": "What?", "answer": "dog"}}',
    ),
    "textvqa": (
        "TextVQA_0.5.1_val.json",
        '{"data": [{"question_id": 3, "image_id": "1", "question": "what IS it?", "answers": ["dog"]}]}',
    ),
    "vizwiz": (
        "val.json",
        '[{"image": "1.jpg", "question": "What?", "answers": [{"answer": "dog"}], "answer_type": "other"}]',
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_question_files_as_published(tmp_path: Path, name: str) -> None:
    file, text = PUBLISHED[name]
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "1.jpg")
    (tmp_path / file).write_text(text)
    benchmark = load_benchmark(name)
    for data in (tmp_path, tmp_path / file):
        files = locate(benchmark, data, split=None, limit=None)
        (row,) = load_prompt_rows(files.sources, Path(files.root))
        assert row.answers == (("no",) if name in ("pope", "vsr", "nlvr") else ("dog",))
        assert row.images[0] == (tmp_path / "images" / "1.jpg").resolve()
        assert benchmark.vqa is not None
        assert row.meta.get("rule", "official") == benchmark.vqa.rule
    if name == "textvqa":
        files = locate(benchmark.with_preset("lmms"), tmp_path, split=None, limit=None)
        (row,) = load_prompt_rows(files.sources, Path(files.root))
        assert row.prompt[0]["content"][-1]["text"].startswith("What is it?")


def test_the_sample_is_found(scenes: Path) -> None:
    files = locate(load_benchmark("sample"), scenes, split=None, limit=None)
    assert files.scenes == "test/scenes.jsonl"
    rows = load_prompt_rows(files.sources, Path(files.root))
    assert sum(row.task == "caption" for row in rows) == IMAGES
    val = locate(load_benchmark("sample"), scenes, split="val", limit=2)
    assert len(load_prompt_rows(val.sources, Path(val.root))) == 4


def test_coco_and_vqav2_folders_as_published(tmp_path: Path) -> None:
    name = "COCO_val2014_000000000042.jpg"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2014").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "val2014" / name)
    captions = {
        "images": [{"id": 42, "file_name": name}],
        "annotations": [{"image_id": 42, "caption": "a dog"}],
    }
    (tmp_path / "annotations" / "captions_val2014.json").write_text(json.dumps(captions))
    questions = {"questions": [{"question_id": 1, "image_id": 42, "question": "a dog?"}]}
    (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").write_text(json.dumps(questions))
    answers = [{"answer": "yes", "answer_id": k} for k in range(10)]
    annotations = {"annotations": [{"question_id": 1, "image_id": 42, "answers": answers}]}
    (tmp_path / "v2_mscoco_val2014_annotations.json").write_text(json.dumps(annotations))
    coco = locate(load_benchmark("coco"), tmp_path, split=None, limit=None)
    assert load_prompt_rows(coco.sources, Path(coco.root))[0].references == ("a dog",)
    vqa = locate(load_benchmark("vqav2"), tmp_path, split="val2014", limit=None)
    row = load_prompt_rows(vqa.sources, Path(vqa.root))[0]
    assert row.prompt[0]["content"][-1]["text"].endswith("single word or phrase.")


def test_a_caption_file_with_its_folder_beside_it(tmp_path: Path) -> None:
    (tmp_path / "flickr").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "flickr" / "1.jpg")
    path = tmp_path / "flickr_captions.json"
    path.write_text(json.dumps({"1.jpg": ["a dog"]}))
    files = locate(load_benchmark("coco"), path, split=None, limit=None)
    assert isinstance(files.sources[0], CaptionSource)
    assert files.sources[0].images == "flickr"
    assert len(load_prompt_rows(files.sources, Path(files.root))) == 1


def test_missing_files_are_listed_with_every_place(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        locate(load_benchmark("vqav2"), tmp_path, split="test", limit=None)
    assert len(caught.value.problems) == 3
    assert "v2_OpenEnded_mscoco_test_questions.json" in str(caught.value)
    with pytest.raises(DataError, match="no such file or folder"):
        locate(load_benchmark("coco"), tmp_path / "none", split=None, limit=None)


def test_a_benchmark_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    vqa = "vqa: {questions: [q.json], annotations: [a.json], images: [i]}"
    path.write_text(f"title: mine\nsplit: dev\ndecoding: {{max_new_tokens: 4}}\n{vqa}\n")
    assert load_benchmark(str(path)).vqa is not None
    path.write_text("title: mine\nsplit: dev\ndecoding: {temperature: 1.0}\n")
    with pytest.raises(RecipeError, match=r"decoding\.temperature"):
        load_benchmark(str(path))
    with pytest.raises(UsageError, match="did you mean 'vqav2'"):
        load_benchmark("vqa2")


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ("out/quickstart/sft/final", "sft"),
        ("org/Some-Model_1.5", "Some-Model_1.5"),
        ("/", "model"),
        ("human", "human-system"),
        ("./x y", "x-y"),
    ],
)
def test_system_names(checkpoint: str, name: str) -> None:
    assert system_name(checkpoint) == name


def test_the_recipe_is_an_ordinary_one(scenes: Path, tmp_path: Path) -> None:
    recipe = benchmark_recipe(
        "a/b", load_benchmark("sample"), scenes, out=tmp_path, limit=3, four_bit=True, shuffled=True
    )
    assert recipe.blind_from == recipe.systems[0].name == "b"
    assert recipe.systems[0].model.quantization is not None
    assert isinstance(recipe.data.test[1], VqaSource)
    assert recipe.data.test[1].limit == 3
