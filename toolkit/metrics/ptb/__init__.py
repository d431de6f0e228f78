"""A pure-Python lexer that yields the tokens of the Penn Treebank tokenizer pycocoevalcap calls through Java."""

from __future__ import annotations

from toolkit.metrics.ptb.lexer import lex

__all__ = ["lex"]
