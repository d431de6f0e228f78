"""Typed rows that flow between the layers, in the vocabulary of Hugging Face and TRL.

A *prompt* is a conversation: a list of ``{"role", "content"}`` messages whose content is a list of
``{"type": "image"}`` and ``{"type": "text", "text": …}`` blocks. There are as many image blocks as images.
An *image* is a path or encoded bytes; it is decoded late, by ``toolkit.data.images.load_image``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "Conversation",
    "ImageSource",
    "PreferenceRow",
    "PromptRow",
    "RankedRow",
    "SftRow",
    "Task",
    "image_prompt",
]

Task = Literal["caption", "vqa"]
ImageSource = Path | bytes
Conversation = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRow:
    """A prompt to answer, with what its answer is scored against.

    ``references`` holds the reference captions of a caption row, ``answers`` the annotators' answers (usually
    ten) of a VQA row. ``sample_id`` is unique within its file; ``image_id`` groups rows of one picture.
    """

    sample_id: str
    task: Task
    prompt: Conversation
    images: tuple[ImageSource, ...]
    image_id: int | str
    references: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SftRow:
    """A prompt and the completion to imitate."""

    sample_id: str
    task: Task
    prompt: Conversation
    completion: str
    images: tuple[ImageSource, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceRow:
    """Two completions of one prompt, the first preferred. ``source`` says where the judgement comes from.

    ``margin`` is how much better the first one is at least, in the scores' unit. ``tie`` means that neither is
    preferred. ``agreement`` is the share of raters that prefer the first (those who see no difference count
    half), None where nobody counted. ``weight`` scales the row's loss. ``meta`` holds its other columns:
    licence, raters, where the row was taken from.
    """

    sample_id: str
    task: Task
    prompt: Conversation
    chosen: str
    rejected: str
    images: tuple[ImageSource, ...]
    margin: float | None = None
    source: str = "unknown"
    tie: bool = False
    agreement: float | None = None
    weight: float = 1.0
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedRow:
    """Two or more completions of one prompt, best first; equal ``ranks`` (from 0) are ties.

    ``agreements[i][j]`` is the share of raters that prefer completion i over j; empty where nobody counted.
    Everything else is as in ``PreferenceRow``; ``margin`` belongs to rows of two completions.
    """

    sample_id: str
    task: Task
    prompt: Conversation
    completions: tuple[str, ...]
    ranks: tuple[int, ...]
    images: tuple[ImageSource, ...]
    margin: float | None = None
    source: str = "unknown"
    agreements: tuple[tuple[float, ...], ...] = ()
    weight: float = 1.0
    meta: Mapping[str, Any] = field(default_factory=dict)


def image_prompt(text: str, *, images: int = 1) -> list[dict[str, Any]]:
    """A one-turn conversation: ``images`` picture placeholders, then ``text``."""
    blocks: list[dict[str, Any]] = [{"type": "image"} for _ in range(images)]
    return [{"role": "user", "content": [*blocks, {"type": "text", "text": text}]}]
