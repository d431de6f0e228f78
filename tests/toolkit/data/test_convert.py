# ruff: noqa: E501 - rows are shown whole
"""Preference data of other formats: each becomes rows that the reader accepts, faulty ones are named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from toolkit.cli.data_convert import FORMATS
from toolkit.cli.main import main
from toolkit.data.convert import convert_preferences
from toolkit.data.converters import CONVERTERS, Origin
from toolkit.data.preferences import read_preference_rows, read_ranked_rows
from toolkit.errors import DataError
from toolkit.records import RankedRow

USER = {"role": "user", "content": "What is it?"}
DIALOGUE = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: A joke?\n\nAssistant: "


def rated(text: str, *ratings: int) -> dict[str, Any]:
    aspects = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")
    return {
        "model": f"model of {text}",
        "response": text,
        "annotations": {
            a: {"Rating": str(r), "Rationale": "…"} for a, r in zip(aspects, ratings, strict=True)
        },
    }


COMPLETIONS = [rated("poor", 1, 5, 1), rated("good", 5, 5, 5), rated("fine", 3, 5, 3)]
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...], list[str]]] = {
    "trl": (
        {"chosen": [USER, {"role": "assistant", "content": "a cat"}], "rejected": [USER, {"role": "assistant", "content": "a dog"}], "images": ["a.png"], "margin": 2},
        ("a cat", "a dog"),
        ["What is it?"],
    ),
    "rlhf-v": (
        {"ds_name": "RLHF-V", "image": {"path": "a.png"}, "text": json.dumps({"question": "What?", "chosen": "a cat", "rejected": "a dog"}), "idx": 3, "image_path": "x.png"},
        ("a cat", "a dog"),
        ["What?"],
    ),
    "rlaif-v": (
        {"question": "What?", "chosen": "a cat", "rejected": "a dog", "image_path": "a.png", "idx": "7"},
        ("a cat", "a dog"),
        ["What?"],
    ),
    "vlfeedback": (
        {"prompt": "What?", "img_path": "a.png", "completions": COMPLETIONS},
        ("good", "fine", "poor"),
        ["What?"],
    ),
    "llava-rlhf": (
        {
            "image": "a.png",
            "conversations": [{"from": "human", "value": "<image>\nHi"}, {"from": "gpt", "value": "Yes?"}, {"from": "human", "value": "What?"}],
            "output_1": {"from": "llava", "value": "a dog"},
            "output_2": {"from": "llava", "value": "a cat"},
            "preference": 2,
        },
        ("a cat", "a dog"),
        ["Hi", "Yes?", "What?"],
    ),
    "hh": (
        {"chosen": f"{DIALOGUE}Why did …", "rejected": f"{DIALOGUE}No."},
        ("Why did …", "No."),
        ["Hi", "Hello", "A joke?"],
    ),
    "nlvr": (
        {"image": "a.png", "sentence": "There is a box", "label": "false"},
        ("false", "true"),
        ["Is this sentence true or false? There is a box"],
    ),
    "vsr": (
        {"image": "a.png", "caption": "The cat is left.", "label": 1},
        ("true", "false"),
        ["Is this sentence true or false? The cat is left."],
    ),
}  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    Image.new("RGB", (8, 8), "blue").save(folder / "b.png")
    return folder


def converted(
    tmp_path: Path, pictures: Path, kind: str, rows: list[dict[str, Any]], **options: Any
) -> list[RankedRow]:
    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = convert_preferences(source, kind, tmp_path / "out", origin=Origin(pictures), **options)
    problems: list[str] = []
    found = [row for path in done.files for _, row in read_ranked_rows(path, problems)]
    assert problems == []
    return found


def texts_of(row: RankedRow) -> list[str]:
    blocks = [block for message in row.prompt for block in message["content"]]
    return [block["text"] for block in blocks if block["type"] == "text"]


@pytest.mark.parametrize("kind", CASES)
def test_a_row_of_each_format(kind: str, tmp_path: Path, pictures: Path) -> None:
    values, completions, texts = CASES[kind]
    [row] = converted(tmp_path, pictures, kind, [values])
    assert row.completions == completions
    assert texts_of(row) == texts
    assert len(row.images) == ("image" in json.dumps(list(row.prompt))) == (kind != "hh")
    assert row.source == kind
    assert row.meta.get("licence") == CONVERTERS[kind].licence


def test_the_command_knows_every_format() -> None:
    assert set(FORMATS) == set(CONVERTERS) == {*CASES, "flickr8k-ratings"}


def test_rated_completions_keep_their_ratings_and_models(tmp_path: Path, pictures: Path) -> None:
    values = CASES["vlfeedback"][0]
    [row] = converted(tmp_path, pictures, "vlfeedback", [values])
    assert row.ranks == (0, 1, 2)
    lists = {key: [entry[key] for entry in COMPLETIONS] for key in COMPLETIONS[0]}
    [stored] = converted(tmp_path, pictures, "vlfeedback", [{**values, "completions": lists}])
    assert stored.completions == row.completions
    line = json.loads((tmp_path / "out/train.jsonl").read_text())
    assert line["completions"] == ["poor", "good", "fine"]
    assert line["models"][0] == "model of poor"


@pytest.mark.parametrize("text", [False, True])
def test_ratings_of_flickr8k_are_lists_by_picture(text: bool, tmp_path: Path, pictures: Path) -> None:
    experts = [
        ("a.png", "a.png#0", [4, 3, 4]),
        ("a.png", "b.png#1", [1, 1, 2]),
        ("b.png", "a.png#0", [2, 2, 2]),
    ]
    captions = {"a.png#0": "a red one", "b.png#1": "a blue one"}
    source, names = tmp_path / "experts.jsonl.gz", None
    if text:
        source, names = tmp_path / "ExpertAnnotations.txt", tmp_path / "Flickr8k.token.txt"
        source.write_text("".join("\t".join(map(str, (i, c, *s))) + "\n" for i, c, s in experts))
        names.write_text("".join(f"{name}\t{caption}\n" for name, caption in captions.items()))
    else:
        lines = [json.dumps({"image": i, "caption": captions[c], "scores": s}) + "\n" for i, c, s in experts]
        source.write_bytes(gzip.compress("".join(lines).encode()))
    origin = Origin(pictures, names)
    done = convert_preferences(source, "flickr8k-ratings", tmp_path / "out", origin=origin)
    [(_, row)] = read_ranked_rows(next(iter(done.files)), [])
    assert row.completions == ("a red one", "a blue one")
    assert row.agreements[0][1] == 1.0


def test_votes_of_the_crowd_give_shares(tmp_path: Path, pictures: Path) -> None:
    votes = [
        {"image": "a.png", "caption": "x", "yes": 2, "no": 1},
        {"image": "a.png", "caption": "y", "yes": 1, "no": 2},
    ]
    [row] = converted(tmp_path, pictures, "flickr8k-ratings", votes)
    assert row.agreements[0][1] == pytest.approx(0.5 * (1 + 2 / 3 - 1 / 3))


def test_many_ratings_of_a_picture_are_dealt_into_lists_with_good_and_bad_ones(
    tmp_path: Path, pictures: Path
) -> None:
    votes = [{"image": "a.png", "caption": f"c{n}", "yes": int(n < 3), "no": int(n >= 3)} for n in range(19)]
    lists = converted(tmp_path, pictures, "flickr8k-ratings", votes)
    assert sorted(len(row.completions) for row in lists) == [6, 6, 7]
    assert {text for row in lists for text in row.completions} == {f"c{n}" for n in range(19)}
    assert all(row.ranks.count(0) == 1 and set(row.ranks) == {0, 1} for row in lists)


@pytest.mark.parametrize("declared", [False, True])
def test_parquet_with_encoded_pictures(declared: bool, tmp_path: Path, pictures: Path) -> None:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    encoded = {"bytes": (pictures / "a.png").read_bytes(), "path": None}
    rows = [{"question": "What?", "chosen": "a", "rejected": "b", "image": encoded}]
    features = Features({name: Value("string") for name in rows[0]} | {"image": ImageFeature()})
    Dataset.from_list(rows, features=features if declared else None).to_parquet(tmp_path / "x.parquet")
    done = convert_preferences(tmp_path / "x.parquet", "rlaif-v", tmp_path / "out", origin=Origin(tmp_path))
    [(_, row)] = read_preference_rows(next(iter(done.files)), [])
    [path] = row.images
    assert isinstance(path, Path)
    assert path.read_bytes() == encoded["bytes"]


def test_sentences_stay_in_one_split_and_no_picture_is_in_both(tmp_path: Path, pictures: Path) -> None:
    for n in range(80):
        Image.new("RGB", (8, 8), (n, 0, 0)).save(pictures / f"{n}.png")
    rows = [
        {"image": f"{2 * n + k}.png", "sentence": f"Sentence {n}", "label": "true"}
        for n in range(40)
        for k in range(2)
    ]
    rows += [{"image": "a.png", "sentence": f"Sentence {n}", "label": "true"} for n in range(40)]
    source = tmp_path / "nlvr.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = convert_preferences(source, "nlvr", tmp_path / "out", origin=Origin(pictures), val_share=0.3)
    train, val = (read_preference_rows(tmp_path / f"out/{part}.jsonl", []) for part in ("train", "val"))
    sentences = [{row.prompt[0]["content"][1]["text"] for _, row in part} for part in (train, val)]
    assert not sentences[0] & sentences[1]
    assert 5 <= len(sentences[1]) <= 20
    assert len(sentences[0]) + len(sentences[1]) == 40
    assert not {row.images for _, row in train} & {row.images for _, row in val}
    assert len(done.left_out) == len(sentences[1])
    assert done.left_out[0].endswith("its picture is in train.jsonl too")


@pytest.mark.parametrize(
    ("kind", "change", "problem"),
    [
        ("rlaif-v", {"image_path": "gone.png"}, "no such file"),
        ("rlaif-v", {"image_path": "../x.png"}, "'..' in the path"),
        ("rlaif-v", {"question": None}, "no field 'question'"),
        ("vlfeedback", {"completions": COMPLETIONS[:1]}, "1 different completions; expected at least two"),
        (
            "vlfeedback",
            {
                "completions": [
                    rated("a", 1, 1, 1),
                    {**rated("b", 1, 1, 1), "annotations": {"H": {"Rating": "N/A"}}},
                ]
            },
            "could not convert string to float: 'N/A'",
        ),
        ("llava-rlhf", {"preference": 0}, "'preference' is '0', expected 1 or 2"),
        ("hh", {"rejected": "\n\nHuman: Other\n\nAssistant: x"}, "differ before their last answer"),
        ("nlvr", {"label": "maybe"}, "'label' is 'maybe', expected true, false, 1 or 0"),
        (
            "trl",
            {"rejected": [{"role": "user", "content": "?"}, USER]},
            "messages that differ in the last alone",
        ),
    ],
)
def test_faulty_rows_are_named_or_left_out(kind: str, change: dict[str, Any], problem: str, tmp_path: Path, pictures: Path) -> None:  # fmt: skip
    good = CASES[kind][0]
    bad = {key: value for key, value in {**good, **change}.items() if value is not None}
    with pytest.raises(DataError) as caught:
        converted(tmp_path, pictures, kind, [good, bad])
    [found] = caught.value.problems
    assert ":2: " in found
    assert problem in found
    assert len(converted(tmp_path, pictures, kind, [good, bad], skip_faulty=True)) == 1


def test_the_command(tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pictures / "pairs.json"
    source.write_text(json.dumps([CASES["rlaif-v"][0], {"question": "?"}]))
    command = ["data", "convert", str(source), "--from", "rlaif-v", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "--skip-faulty" in capsys.readouterr().err
    assert main([*command, "--skip-faulty", "--licence", "ours"]) == 0
    printed = capsys.readouterr()
    assert "train.jsonl: 1 rows\n1 rows or pictures left out\n" in printed.out
    assert "pairs.json[1]: no field 'image_path'" in printed.err
    assert json.loads((tmp_path / "out/train.jsonl").read_text())["licence"] == "ours"
