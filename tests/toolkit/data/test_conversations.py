"""Prompts of every accepted form become the same blocks as TRL makes of them."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.data.conversations import completion_text, conversation

_IMAGE = {"type": "image"}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def test_text_gets_the_placeholders_in_front() -> None:
    assert conversation("hi", images=2) == [{"role": "user", "content": [_IMAGE, _IMAGE, _text("hi")]}]
    assert conversation("hi", images=0) == [{"role": "user", "content": [_text("hi")]}]


def test_messages_of_text_get_them_in_the_first_user_message() -> None:
    prompt = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": [_text("Which colour?")]},
    ]
    assert conversation(prompt, images=1) == [
        {"role": "system", "content": [_text("Be brief.")]},
        {"role": "user", "content": [_IMAGE, _text("What is it?")]},
        {"role": "assistant", "content": [_text("A cat.")]},
        {"role": "user", "content": [_text("Which colour?")]},
    ]


def test_own_placeholders_keep_their_places() -> None:
    prompt = [
        {
            "role": "user",
            "content": [_text("This"), _IMAGE, {"type": "image", "text": None}, _text("or that?")],
        }
    ]
    blocks = conversation(prompt, images=2)[0]["content"]
    assert blocks == [_text("This"), _IMAGE, _IMAGE, _text("or that?")]


@pytest.mark.slow  # importing TRL takes some seconds
@pytest.mark.parametrize("images", [0, 1, 2])
@pytest.mark.parametrize(
    "prompt",
    [
        [{"role": "user", "content": "a"}],
        [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}],
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ],
    ],
)
def test_equal_to_trl(prompt: list[dict[str, Any]], images: int) -> None:
    data_utils = pytest.importorskip("trl.data_utils")
    theirs = data_utils.prepare_multimodal_messages(prompt, images=["picture"] * images)
    for message in theirs:
        for block in message["content"]:
            block.pop("image", None)
    assert conversation(prompt, images=images) == theirs


@pytest.mark.parametrize(
    ("prompt", "images", "problem"),
    [
        ("  ", 1, "the prompt is empty"),
        ([], 0, "expected text or a list of messages"),
        (5, 0, "expected text or a list of messages"),
        (["hi"], 0, "expected an object with a role of system, user, assistant"),
        (
            [{"role": "human", "content": "hi"}],
            0,
            "expected an object with a role of system, user, assistant",
        ),
        ([{"role": "user", "content": None}], 0, "expected text or a list of blocks"),
        ([{"role": "user", "content": [{"type": "video"}]}], 0, "content block"),
        ([{"role": "user", "content": [{"type": "text"}]}], 0, "content block"),
        (
            [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}],
            1,
            "put the picture into 'images'",
        ),
        (
            [{"role": "assistant", "content": "hi"}],
            0,
            "ends with a message of role 'assistant', expected 'user'",
        ),
        ([{"role": "user", "content": [_IMAGE]}], 2, "1 image placeholders in the prompt for 2 images"),
        ([{"role": "user", "content": [_IMAGE]}], 0, "1 image placeholders in the prompt for 0 images"),
    ],
)
def test_refused_prompts(prompt: Any, images: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        conversation(prompt, images=images)


def test_completions() -> None:
    assert completion_text(" a cat\n", "completion") == "a cat"
    assert completion_text([{"role": "assistant", "content": "a cat"}], "chosen") == "a cat"
    assert (
        completion_text([{"role": "assistant", "content": [_text("a "), _text("cat")]}], "chosen") == "a cat"
    )


@pytest.mark.parametrize("value", [None, 3, [], [{"role": "user", "content": "x"}], [{"role": "assistant"}]])
def test_refused_completions(value: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        completion_text(value, "chosen")
