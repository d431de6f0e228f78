"""The lexer: at each position the rule with the longest match makes the next token."""

from __future__ import annotations

from toolkit.metrics.ptb.grammar import RULES

__all__ = ["lex"]

_SPELLED = {
    "(": "-LRB-",
    ")": "-RRB-",
    "[": "-LSB-",
    "]": "-RSB-",
    "{": "-LCB-",
    "}": "-RCB-",
    "\u00a2": "cents",
    "\u00a3": "#",
    "\u0080": "$",
    "\u00a4": "$",
    "\u20a0": "$",
    "\u20ac": "$",
    "\u00bc": "1/4",
    "\u00bd": "1/2",
    "\u00be": "3/4",
    "\u2153": "1/3",
    "\u2154": "2/3",
    "\u2026": "...",
}
_SPELLED |= dict.fromkeys("\u0096\u0097\u2013\u2014\u2015", "--")
_SPELLED |= dict.fromkeys("\u0091\u2018\u201b\u2039", "`")
_SPELLED |= dict.fromkeys("\u0092\u2019\u203a", "'")
_SPELLED |= dict.fromkeys("\u0093\u00ab\u201c", "``")
_SPELLED |= dict.fromkeys('\u0094\u00bb\u201d"', "''")


def lex(text: str) -> list[str]:
    """The tokens of ``text``, punctuation included, case kept."""
    tokens = []
    position, end = 0, len(text)
    while position < end:
        best, stop = None, position
        for rule in RULES:
            match = rule.pattern.match(text, position)
            if match is not None and match.end() > stop:
                best, stop = match, match.end()
        if best is None:
            position += 1
            continue
        token = best["token"]
        tokens.append(_spell(token))
        position += len(token)
    return tokens


def _spell(token: str) -> str:
    if token in _SPELLED:
        return _SPELLED[token]
    token = token.replace("\u00ad", "").replace("\u2019", "'").replace(" ", "\u00a0")
    return token.replace("(", "-LRB-").replace(")", "-RRB-")
