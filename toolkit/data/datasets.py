"""Rows as ``datasets.Dataset`` in TRL's vocabulary. Pictures stay paths or bytes until a row is read.

TRL's vision collators look for ``prompt`` with ``completion`` or with ``chosen`` and ``rejected``, and for a
list ``images`` of PIL pictures. A transform of the dataset decodes them on access with our own ``load_image``,
so that orientation, transparency and every PIL mode are treated alike in all stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.data.images import load_image
from toolkit.records import Conversation, ImageSource, PreferenceRow, SftRow

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["preference_dataset", "sft_dataset"]


def sft_dataset(rows: Sequence[SftRow]) -> Dataset:
    """Columns ``prompt`` and ``completion`` (conversations), ``images`` (RGB pictures), ``sample_id``, ``task``."""
    columns = {"completion": [_answer(row.completion) for row in rows]}
    return _dataset(rows, columns, {"completion": _conversation_feature()})


def preference_dataset(rows: Sequence[PreferenceRow]) -> Dataset:
    """As :func:`sft_dataset`, with ``chosen``, ``rejected``, ``margin`` (or None) and ``source``."""
    from datasets import Value

    columns: dict[str, list[Any]] = {
        "chosen": [_answer(row.chosen) for row in rows],
        "rejected": [_answer(row.rejected) for row in rows],
        "margin": [row.margin for row in rows],
        "source": [row.source for row in rows],
    }
    kinds = {"margin": Value("float64"), "source": Value("string")}
    conversations = {"chosen": _conversation_feature(), "rejected": _conversation_feature()}
    return _dataset(rows, columns, {**conversations, **kinds})


def _dataset(
    rows: Sequence[SftRow] | Sequence[PreferenceRow], columns: dict[str, list[Any]], kinds: dict[str, Any]
) -> Dataset:
    from datasets import Dataset, Features, List, Value

    picture = {"path": Value("string"), "bytes": Value("binary")}
    common_kinds = {
        "prompt": _conversation_feature(),
        "images": List(picture),
        "sample_id": Value("string"),
        "task": Value("string"),
    }
    common = {
        "prompt": [[_stored(message) for message in row.prompt] for row in rows],
        "images": [[_encoded(image) for image in row.images] for row in rows],
        "sample_id": [row.sample_id for row in rows],
        "task": [row.task for row in rows],
    }
    dataset = Dataset.from_dict({**common, **columns}, features=Features({**common_kinds, **kinds}))
    return dataset.with_transform(_decoded)


def _conversation_feature() -> Any:
    from datasets import List, Value

    block = {"type": Value("string"), "text": Value("string")}
    return List({"role": Value("string"), "content": List(block)})


def _answer(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


def _stored(message: Mapping[str, Any]) -> dict[str, Any]:
    blocks = [{"type": block["type"], "text": block.get("text")} for block in message["content"]]
    return {"role": message["role"], "content": blocks}


def _encoded(image: ImageSource) -> dict[str, Any]:
    return {"path": str(image), "bytes": None} if isinstance(image, Path) else {"path": None, "bytes": image}


def _decoded(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """A batch as TRL's collators expect it; a module-level function, so that data workers can pickle it."""
    decoded = dict(batch)
    for name in {"prompt", "completion", "chosen", "rejected"} & batch.keys():
        decoded[name] = [_without_gaps(conversation) for conversation in batch[name]]
    if "images" in batch:
        decoded["images"] = [[load_image(_source(image)) for image in images] for images in batch["images"]]
    return decoded


def _without_gaps(conversation: Conversation) -> list[dict[str, Any]]:
    """Arrow gives an image block a ``text`` of None, which chat templates would take for text."""
    return [
        {
            "role": message["role"],
            "content": [{k: v for k, v in block.items() if v is not None} for block in message["content"]],
        }
        for message in conversation
    ]


def _source(image: Mapping[str, Any]) -> ImageSource:
    data = image["bytes"]
    return Path(image["path"]) if data is None else bytes(data)
