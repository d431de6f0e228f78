"""Lengths of texts that no model wrote, counted with the tokenizer of a checkpoint."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.config.schema import ModelSpec

__all__ = ["TokenCounter"]


class TokenCounter:
    """Counts the tokens of a text without special tokens. The tokenizer is read on first use."""

    def __init__(self, model: ModelSpec) -> None:
        self._model = model

    def count(self, text: str) -> int:
        """The number of tokens of ``text``."""
        return len(
            _tokenizer(self._model.id, self._model.revision)(text, add_special_tokens=False)["input_ids"]
        )


@lru_cache(maxsize=2)
def _tokenizer(name: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(name, revision=revision)
