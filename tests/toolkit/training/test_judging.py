"""Judging: texts packed behind a picture are seen as in sequences of their own, and only what should moves."""

import json

import pytest
import torch

from toolkit.data.images import load_image
from toolkit.errors import DataError
from toolkit.models.encoding import collate, encode_completion, encode_prompt
from toolkit.models.structure import output_head, trunk
from toolkit.records import image_prompt
from toolkit.runs.directory import RunDirectory
from toolkit.training.judging import (
    JudgedCollator,
    JudgedPicture,
    Text,
    read_judged,
    train_judging,
    with_plain_texts,
)

TEXTS = (
    Text("Describe the image.", "a red picture", True),
    Text("Describe the image.", "a green or blue one", False),
    Text("What do you see?", "a red one"),
)


@pytest.fixture
def judged(pictures):
    return [JudgedPicture(picture, TEXTS[: 2 + index % 2]) for index, picture in enumerate(pictures.values())]


def trained(vlm, judged, run_spec, name):
    directory = RunDirectory(run_spec(name).output_dir)
    directory.path.mkdir()
    options = {"max_steps": 4, "per_device_train_batch_size": 2, "learning_rate": 5e-3}
    train_judging(vlm, judged, directory=directory, run=run_spec(name), trainer_options=options)
    return vlm.model.state_dict()


def test_packed_texts_predict_what_they_predict_alone(new_vlm, judged):
    vlm = new_vlm("full")
    vlm.model.eval()
    batch = JudgedCollator(vlm)(judged)["batch"]
    with torch.no_grad():
        packed = output_head(vlm.model)(
            trunk(vlm.model)(**batch.sequences.model_inputs(), use_cache=False).last_hidden_state
        )
        for row, picture in enumerate(judged):
            found = [
                (int(place), int(batch.targets[row, place]))
                for place in batch.targets[row].ge(0).nonzero().flatten()
            ]
            for text in picture.texts:
                prompt = encode_prompt(vlm, image_prompt(text.prompt), [load_image(picture.image)])
                answer = encode_completion(vlm, text.completion)
                alone = collate(vlm, [prompt], [answer], padding_side="right")
                logits = output_head(vlm.model)(
                    trunk(vlm.model)(**alone.model_inputs(), use_cache=False).last_hidden_state
                )[0]
                first = len(prompt.input_ids) - 1
                last = first + len(answer)
                places = range(first, last) if text.right is None else [last]
                for place in places:
                    packed_place, target = found.pop(0)
                    torch.testing.assert_close(packed[row, packed_place], logits[place], rtol=1e-4, atol=1e-5)
                    if text.right is None:
                        assert target == answer[place - first]
                    else:
                        assert vlm.tokenizer.decode([target]) == ("y" if text.right else "n")
                        assert batch.is_judgement[row, packed_place]
            assert not found


def test_the_same_seed_gives_the_same_model_and_the_tower_stays(new_vlm, judged, run_spec):
    before = new_vlm("full").model.state_dict()
    first = trained(new_vlm("full"), judged, run_spec, "a")
    second = trained(new_vlm("full"), judged, run_spec, "b")
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        kept = "vision_tower" in name or "projector" in name
        assert torch.equal(value, before[name]) == kept, name


def test_it_learns_to_tell_right_from_wrong(new_vlm, pictures, run_spec):
    judged = [
        JudgedPicture(
            path,
            tuple(Text("Describe the image.", f"a {other} picture", other == name) for other in pictures),
        )
        for name, path in pictures.items()
    ]
    vlm = new_vlm("full")
    directory = RunDirectory(run_spec("learn").output_dir)
    directory.path.mkdir()
    options = {"max_steps": 150, "per_device_train_batch_size": 3, "learning_rate": 3e-3}
    train_judging(
        vlm, judged, directory=directory, run=run_spec("learn", save_every_steps=500), trainer_options=options
    )
    lines = [json.loads(line) for line in (directory.path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.1 < losses[0]


def test_plain_texts_take_turns(pictures, sft_rows):
    image = pictures["red"]
    twice = [JudgedPicture(image, TEXTS[:2])] * 2
    first, second = with_plain_texts(twice, sft_rows, number=2)
    plain = [row.completion for row in sft_rows if row.images[0] == image]
    assert [text.completion for text in first.texts[2:]] == plain[:2]
    assert [text.completion for text in second.texts[2:]] == plain[2:4]
    assert {text.right for text in first.texts[2:]} == {None}


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "judged.jsonl"
    path.write_text('{"image": "a.png", "judged": 3}\n')
    with pytest.raises(DataError, match="line 1: expected an image and judged texts"):
        read_judged(path)
    with pytest.raises(DataError, match="no such file"):
        read_judged(tmp_path / "none.jsonl")
