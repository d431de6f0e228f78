"""Prompts and completions as users write them, brought to one form: messages of content blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.data.files import shown
from toolkit.records import image_prompt

__all__ = ["completion_text", "conversation"]

_ROLES = ("system", "user", "assistant")


def conversation(prompt: Any, *, images: int) -> list[dict[str, Any]]:
    """``prompt`` as a conversation with exactly ``images`` picture placeholders.

    A string becomes one user message, placeholders first. Where no message has a placeholder, they are put in
    front of the first user message, as TRL does.

    Raises:
        ValueError: no text or messages, an unknown role or block, the last message is not the user's, or the
            number of placeholders is not ``images``.
    """
    if isinstance(prompt, str):
        if not prompt.strip():
            raise ValueError("the prompt is empty")
        return image_prompt(prompt, images=images)
    if not isinstance(prompt, list) or not prompt:
        raise ValueError(f"the prompt is {shown(prompt)}, expected text or a list of messages")
    messages = [_message(message) for message in prompt]
    if messages[-1]["role"] != "user":
        raise ValueError(
            f"the prompt ends with a message of role {shown(messages[-1]['role'])}, expected 'user'"
        )
    if images and not _placeholders(messages):
        first = next(message for message in messages if message["role"] == "user")
        first["content"] = [*({"type": "image"} for _ in range(images)), *first["content"]]
    if (count := _placeholders(messages)) != images:
        raise ValueError(f"{count} image placeholders in the prompt for {images} images; expected as many")
    return messages


def completion_text(value: Any, name: str) -> str:
    """The text of a completion: a string, or one assistant message with text content; stripped.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list) and len(value) == 1:
        message = _message(value[0])
        if message["role"] == "assistant" and not _placeholders([message]):
            return "".join(block["text"] for block in message["content"]).strip()
    raise ValueError(f"'{name}' is {shown(value)}, expected text or one assistant message of text")


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise ValueError(f"message {shown(message)}: expected an object with a role of {', '.join(_ROLES)}")
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise ValueError(f"message content {shown(content)}: expected text or a list of blocks")
    return {"role": message["role"], "content": [_block(block) for block in content]}


def _block(block: Any) -> dict[str, Any]:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "text" and isinstance(block.get("text"), str):
        return {"type": "text", "text": block["text"]}
    if kind == "image" and not any(
        value is not None for key, value in block.items() if key not in ("type", "text")
    ):
        return {"type": "image"}
    if kind == "image":
        raise ValueError(
            f"image block {shown(block)}: expected a bare placeholder; put the picture into 'images'"
        )
    raise ValueError(
        f"content block {shown(block)}: expected {{'type': 'image'}} or {{'type': 'text', 'text': …}}"
    )


def _placeholders(messages: list[dict[str, Any]]) -> int:
    blocks: list[Mapping[str, Any]] = [block for message in messages for block in message["content"]]
    return sum(block["type"] == "image" for block in blocks)
