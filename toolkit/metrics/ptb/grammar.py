"""The rules of the lexer: patterns tried at one position, of which the longest match wins, the first on a tie.

A pattern's group ``token`` is what becomes a token; what follows it in the match is looked at and left for the
next token, yet counts for the length, so that a rule with a long context beats a shorter plain one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from toolkit.metrics.ptb.abbreviations import ABBREVIATIONS, BEFORE_NUMBERS, CAPITALISED
from toolkit.metrics.ptb.characters import DIGIT, LETTER, MARK, SYMBOL

__all__ = ["RULES", "Rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A named pattern with a group called ``token``."""

    name: str
    pattern: re.Pattern[str]


L = f"[{LETTER}{MARK}]"
LD = f"[{LETTER}{DIGIT}]"
D = f"[{DIGIT}]"
W = f"{L}(?:[{LETTER}{MARK}{DIGIT}\u00ad])*"
Q = "(?:['\u2019\u0092]|&apos;)"
NOT_LETTER = f"(?![{LETTER}{MARK}])"
NOT_WORD = f"(?![{LETTER}{MARK}{DIGIT}])"


def _any_case(words: frozenset[str]) -> str:
    return "|".join(sorted(words, key=lambda word: (-len(word), word)))


def _capitalised(words: frozenset[str]) -> str:
    return "|".join(
        f"[{w[0]}{w[0].upper()}]"[2:3] + f"(?i:{w[1:]})" for w in sorted(words, key=len, reverse=True)
    )


_ABBREVIATION = f"(?i:{_any_case(ABBREVIATIONS)})|{_capitalised(CAPITALISED)}"

_SPECIFICATION: list[tuple[str, str]] = [
    ("markup", r"(?P<token></?[A-Za-z!?][A-Za-z0-9_:.@-]*(?:[ \t][^<>\r\n]*)?/?>|<[!?][^<>\r\n]*>)"),
    (
        "entity",
        r"(?P<token>&(?i:amp|lt|gt|quot|apos|nbsp|mdash|ndash);|&\#\d+;|&[aeiouAEIOU](?:acute|grave|circ|uml);)",
    ),
    ("address", r"(?P<token>(?i:https?)://[^\s\"<>|()\u00a0]+[^\s\"<>|().!?,;:\u00a0'-])"),
    (
        "mail",
        r"(?P<token>(?:[Mm]ailto:)?[A-Za-z0-9][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9-]*(?:\.[A-Za-z0-9][A-Za-z0-9-]*)*)",
    ),
    (
        "host path",
        r"(?P<token>[A-Za-z0-9][A-Za-z0-9-]*(?:\.[A-Za-z0-9-]+)*\.(?i:com|net|org|edu)(?:/[^\s\"<>|().!?,;:\u00a0']+)?)",
    ),
    ("mention", r"(?P<token>[@#][A-Za-z_][A-Za-z0-9_]*)"),
    ("cannot", rf"(?P<token>(?i:can))(?i:not){NOT_WORD}"),
    ("gonna", rf"(?P<token>(?i:gon|wan))(?i:na){NOT_WORD}"),
    ("gotta", rf"(?P<token>(?i:got))(?i:ta){NOT_WORD}"),
    ("lemme", rf"(?P<token>(?i:lem|gim))(?i:me){NOT_WORD}"),
    ("more'n", rf"(?P<token>(?i:more))['\u2019]n{NOT_WORD}"),
    ("tis", rf"(?P<token>['\u2019](?i:t))(?i:is|was){NOT_WORD}"),
    ("before n't", rf"(?P<token>[A-Za-z]*[A-MO-Za-mo-z])(?i:n['\u2019]t){NOT_WORD}"),
    ("n't", rf"(?P<token>(?i:n['\u2019]t)){NOT_WORD}"),
    ("clitic", rf"(?P<token>['\u2019](?i:s|d|m|re|ve|ll)){NOT_WORD}"),
    ("apostrophe", rf"(?P<token>['\u2019](?:em|EM|Em|til|cause|n['\u2019]?|N['\u2019]?)){NOT_WORD}"),
    ("decade", r"(?P<token>['\u2019]\d0s)"),
    ("y'all", rf"(?P<token>(?i:[yjdl])['\u2019])(?={L})"),
    (
        "apostrophe inside",
        rf"(?P<token>[Oo]['\u2019][A-Za-z]{{2,}}(?:-[A-Za-z]+)*|[DdLl]['\u2019]{L}{{2,}}|(?i:qu|jusqu|presqu|lorsqu|puisqu|quelqu)['\u2019][A-Za-z]+|(?i:d['\u2019]ye?a?|ma['\u2019]am|o['\u2019]clock|ne['\u2019]er|e['\u2019]er))",
    ),
    ("fraction", r"(?P<token>(?:\d{1,4}[ -])?\d{1,4}/\d{1,4})"),
    ("date", r"(?P<token>\d{1,2}[-/]\d{1,2}[-/]\d{2,4})"),
    ("phone", r"(?P<token>\(\d{2,3}\)[ ]?\d{3,4}[- ]?\d{3,5}|\d{2,4} \d{3,4} \d{3,5})"),
    ("number", rf"(?P<token>[-+]?(?:[.,:]?{D}+)(?:[.,:]?-?{D}+)*)"),
    ("thing", rf"(?P<token>{LD}+(?:[-_\u058a\u2010\u2011]{LD}+)*)"),
    ("slashes", r"(?P<token>[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2})"),
    ("word", rf"(?P<token>{W})"),
    ("dotted", rf"(?P<token>{W}(?:[.!?]{W})+)"),
    ("initials", r"(?P<token>[A-Za-z](?:\.[A-Za-z])*\.(?:-[A-Za-z]+)*)"),
    ("doctorate", r"(?P<token>[Pp][Hh]\.[Dd]\.)"),
    ("abbreviation", rf"(?P<token>(?:{_ABBREVIATION})\.)"),
    ("abbreviation 5", rf"(?P<token>(?i:{_any_case(BEFORE_NUMBERS)})\.)\s?\d"),
    ("ampersand", r"(?P<token>[A-Z]+(?:&[A-Z]+)+)"),
    ("currency", r"(?P<token>(?:[A-Z]{1,2}|us|a|c)\$)"),
    ("smiley", r"(?P<token>[<>]?[:;=]['o-]?[()\]\[DPdpO*|\\/3](?![A-Za-z0-9]))"),
    ("face", r"(?P<token>\^_\^|-_-|>_<|~_~|'_'|=_=|@_@|\([-^><~=']_[-^><~=']\))"),
    ("runs", r"(?P<token>[!?]+|--+|[*]+|_+|~+|=+|<<|>>|``|''|@+|\#+|\.\.\.|\. \. \.|['\u2019]{2})"),
    ("dots", r"(?P<token>\.)"),
    (
        "other",
        rf"(?P<token>[{SYMBOL}\x21-\x7e\u0080\u0091-\u0094\u0096\u0097\u00a2-\u00a4\u00ab\u00b2\u00b3\u00b9\u00bb-\u00be\u00ad\u2013-\u2015\u2018-\u201f\u2026\u2039\u203a\u2070\u2074-\u2079\u2080-\u2089\u20a0\u20ac\u2153\u2154])",
    ),
]
RULES = tuple(Rule(name, re.compile(pattern)) for name, pattern in _SPECIFICATION)
