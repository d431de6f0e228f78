"""Text and numbers for the report page: everything a model or a file says is escaped here."""

from __future__ import annotations

import html
import math
import unicodedata
from typing import Any

__all__ = ["escape", "number", "signed", "visible"]

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Joiners shape emoji and several scripts; they hide nothing.
_KEPT = {"\u200c", "\u200d"}


def visible(text: str, *, keep_newlines: bool = False) -> str:
    r"""``text`` with control, bidirectional and unassigned characters written as escapes, such as ``\x1b``."""
    return "".join(_visible_character(character, keep_newlines) for character in text)


def escape(value: Any, *, keep_newlines: bool = False) -> str:
    """``value`` as HTML text: markup is shown, not obeyed, and hidden characters are made visible."""
    return html.escape(visible(str(value), keep_newlines=keep_newlines), quote=True)


def number(value: float | None, digits: int = 3) -> str:
    """A number with a fixed count of decimals and a true minus, or an en dash for none and NaN."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """Like ``number``, with a sign (a true minus)."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:+,.{digits}f}".replace("-", "−")


def _visible_character(character: str, keep_newlines: bool) -> str:
    if (character == "\n" and keep_newlines) or character in _KEPT:
        return character
    if unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    names = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return names.get(character, f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
