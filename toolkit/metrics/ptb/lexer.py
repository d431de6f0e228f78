"""The lexer: at each position the rule with the longest match makes the next token."""

from __future__ import annotations

import re
from functools import lru_cache

from toolkit.metrics.ptb.grammar import RULES, Rule

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
    "\u00ad": "-",
}
_SPELLED |= dict.fromkeys("\u0096\u0097\u2013\u2014\u2015", "--")
_SPELLED |= dict.fromkeys("\u0091\u2018\u201b\u2039", "`")
_SPELLED |= dict.fromkeys("\u0092\u2019\u203a", "'")
_SPELLED |= dict.fromkeys("\u0093\u00ab\u201c", "``")
_SPELLED |= dict.fromkeys('\u0094\u00bb\u201d"', "''")


_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''", "&apos;": "'"}
_ENTITIES |= {"&md;": "--", "&mdash;": "--", "&ndash;": "--"}
# In capitals these are entities, too, and stay as they are written.
_SMALL_ENTITIES = frozenset({"&quot;", "&apos;"})
# Only in these rules is an apostrophe spelled anew; elsewhere inside a word it stays as it was written.
_STRAIGHTENED = frozenset({"n't", "clitic"})
# Elsewhere a soft hyphen disappears.
_WRITTEN_AS_IS = frozenset({"address", "www", "host", "mail", "mention", "hash tag", "markup"})
_AMPERSAND = re.compile("(?ai:&amp;)")
_STRAIGHT = {"&apos;": "'", "\u2019": "'", "\u0092": "'", "\u2018": "`", "\u201b": "`", "\u0091": "`"}


@lru_cache(maxsize=4096)
def _rules_for(character: str) -> tuple[Rule, ...]:
    """The rules that can begin with ``character``."""
    return tuple(rule for rule in RULES if rule.first.match(character))


def lex(text: str, end: int | None = None) -> list[str]:
    """The tokens of ``text`` that begin before ``end``, punctuation included, case kept."""
    tokens = []
    position = 0
    fails_until: dict[str, int] = {}
    if end is None:  # some rules look at the blank behind a word
        end, text = len(text), f"{text}\n"
    while position < end:
        best, stop, winner = None, position, ""
        for rule in _rules_for(text[position]):
            if rule.hopeless is not None and position < fails_until.get(rule.name, 0):
                continue
            match = rule.pattern.match(text, position)
            if match is not None:
                if match.end() > stop:
                    best, stop, winner = match, match.end(), rule.name
            elif rule.hopeless is not None and (run := rule.hopeless.match(text, position)) is not None:
                fails_until[rule.name] = run.end()
        if best is None:
            position += 1
            continue
        token = best["token"]
        if winner != "blank":
            tokens.append(_spell(token, winner))
        position += len(token)
    return tokens


def _spell(token: str, rule: str) -> str:
    if token in _SPELLED:
        return _SPELLED[token]
    if rule == "entity":
        small = token.lower()
        return _ENTITIES.get(token if small in _SMALL_ENTITIES else small, token)
    if rule in _STRAIGHTENED:
        for written, straight in _STRAIGHT.items():
            token = token.replace(written, straight)
    if token[0] == "-" and not token.strip("-"):
        return "--" if 1 < len(token) < 5 else token
    if rule == "quotes":
        return "".join(_SPELLED.get(mark, mark) for mark in token)
    if rule == "runs" and token.startswith("."):
        return "..."
    if rule not in _WRITTEN_AS_IS:
        token = token.replace("\u00ad", "") or "-"
    if rule == "ampersand":
        token = _AMPERSAND.sub("&", token)
    token = token.replace(" ", "\u00a0")
    return token if rule == "markup" else token.replace("(", "-LRB-").replace(")", "-RRB-")
