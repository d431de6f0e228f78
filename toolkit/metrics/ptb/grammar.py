"""The rules of the lexer: patterns tried at one position, of which the longest match wins, the first on a tie.

A pattern's group ``token`` is what becomes a token; what follows it in the match is looked at and left for the
next token, yet counts for the length, so that a rule with a long context beats a shorter plain one. All rules were
found by watching what the original tokenizer makes of strings put together for the purpose.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from toolkit.metrics.ptb.abbreviations import (
    BEFORE_NUMBERS,
    CAPITALISED,
    FINAL,
    SENTENCE_STARTERS,
    TITLES,
    UNCAPITALISED_FINAL,
    UNCAPITALISED_TITLES,
)
from toolkit.metrics.ptb.characters import DIGIT, LETTER, MARK, SYMBOL

__all__ = ["RULES", "Rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A named pattern with a group called ``token``; ``first`` says with which characters it can begin.

    Where ``pattern`` fails, it fails in the whole of ``hopeless`` from there on: long runs are looked through once.
    """

    name: str
    first: re.Pattern[str]
    pattern: re.Pattern[str]
    hopeless: re.Pattern[str] | None


_ACCENTED = "&[aeiouAEIOU](?i:acute|grave|uml);"
_L = f"(?:[{LETTER}{MARK}\u00ad]|{_ACCENTED})"
_BEGINS_WORD = f"{LETTER}{MARK}\u00ad&"
_D = f"[{DIGIT}]"
_LD = f"[{LETTER}{DIGIT}]"
_WORD = f"{_L}(?:[{LETTER}{MARK}{DIGIT}\u00ad]|{_ACCENTED})*"
_Q = "(?:['\u2019\u0092]|&(?i:apos);)"
_CURLY = "(?:[\u2019\u0092]|&(?i:apos);)"
_QQ = "(?:['\u2019\u0092`\u2018\u201b\u0091]|&(?i:apos);)"
_QUOTE = "[`\u0091-\u0094\u00ab\u00bb\u2018-\u201f\u2039\u203a]"
_DASH = "[-_\u058a\u2010\u2011]"
_AZ = "[A-Za-z]"
_AN = "[A-Za-z0-9]"
_NO_LETTER = "(?![A-Za-z])"
_BLANK = "[ \u00a0]"
_GAP = "[- \u00a0]"
_LINE_BLANKS = " \t\n\r\f\v\u00a0"
_SPACE = f"[{_LINE_BLANKS}\u2000-\u200a\u2028\u2029\u3000]"
_RAISED = "[\u207a\u207b\u208a\u208b]?(?:[\u00b2\u00b3\u00b9\u2070\u2074-\u2079]+|[\u2080-\u2089]+)"
# Blanks end an address, and the characters of the first group; those of the second cannot be its last.
_OUTSIDE = r" \t\n\r\f\v\"<>|()"
_URL = rf"[^{_OUTSIDE}{{}}]"
_URL_END = rf"[^{_OUTSIDE}{{}}.!?,-]"
_PATH = rf"/[^{_OUTSIDE}]+{_URL_END}"
_HOST = rf"[^{_OUTSIDE}{{}}!$',-_`]"  # from comma to underscore: digits and capitals too
_AMPERSAND = "[A-Z]+(?:(?:&(?i:amp);|[&+])[A-Z]+)+"
_JOINED = rf"{_AN}[A-Za-z0-9.,\u00ad]*+(?:-[A-Za-z0-9\u00ad]+)+"
_JOINED_INITIALS = rf"{_AN}[A-Za-z0-9.,\u00ad]*+(?:-[A-Za-z0-9\u00ad]+)*-{_AZ}(?:\.{_AZ})+\."
_PART = f"(?:[dDoOlL]{_QQ}{_LD})?{_LD}+"
_BEFORE_COMMA = (
    rf"{_PART}(?:{_DASH}{_PART})*|{_WORD}(?:[.!?]{_WORD})*|{_AMPERSAND}|{_JOINED_INITIALS}|{_JOINED}"
)
_FACE = "['<=>^x~]"
_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
_ATTRIBUTE = f"{_NAME}(?: *= *(?:\"[^\"]*\"|'[^']*'))?"
_MARKUP = rf"<(?:[!?][A-Za-z-][^>\r\n]*|/{_NAME} *|{_NAME}(?: +{_ATTRIBUTE})* *(?:/ *)?)>"
_FILE_TYPES = (
    "bat|bmp|class|cgi|cpp|dll|docx|doc|exe|gif|gz|html|htm|jar|java|jpeg|jpg|mov|mp3|pdf|php|pl|png|ppt|ps|py|sql|"
    "tar|txt|wav|xml|zip|c|h|x"
)


def _one_of(words: frozenset[str]) -> str:
    return "|".join(sorted(words, key=lambda word: (-len(word), word)))


def _with_capital(words: frozenset[str]) -> str:
    return "|".join(
        f"{word[0].upper()}(?i:{word[1:]})" for word in sorted(words, key=lambda word: (-len(word), word))
    )


_ANY = r"\S"
_OTHER = (
    rf"[{SYMBOL}\x21-\x7e\u0080\u0091-\u0094\u0096\u0097\u00a2-\u00a4\u00ab\u00ad\u00b2\u00b3\u00b9\u00bb-\u00be\u2013-"
    r"\u2015\u2018-\u201f\u2026\u2039\u203a\u2070\u2074-\u2079\u2080-\u2089\u20a0\u20ac\u2153\u2154]"
)


def _abbreviated(any_case: frozenset[str], not_in_capitals: frozenset[str]) -> str:
    capitalised = frozenset(map(str.capitalize, not_in_capitals))
    return f"(?i:{_one_of(any_case)})|{_one_of(not_in_capitals | capitalised)}"


_FINAL = f"{_abbreviated(FINAL, UNCAPITALISED_FINAL)}|{_with_capital(CAPITALISED)}"
_TITLE = _abbreviated(TITLES, UNCAPITALISED_TITLES)

_SPECIFICATION: list[tuple[str, str, str]] = [
    (
        "markup",
        "<",
        _MARKUP,
    ),
    ("bracket", "-", "-(?i:[LR][CRS]B)-"),
    ("blank", "&", "&(?i:nbsp);"),
    (
        "entity",
        "&",
        r"&(?i:amp|lt|gt|quot|apos|mdash|ndash|md|ht|lr|qc|ql|qr|tl|ur|cdq|odq);|&\#[0-9]+;",
    ),
    ("dotted", _BEGINS_WORD, rf"{_WORD}(?:[.!?]{_WORD})+"),
    ("address", "hH", rf"(?i:https?)://{_URL}+{_URL_END}"),
    ("www", "wW", rf"(?i:www)\.(?:[^{_OUTSIDE}{{}}.!?,]+\.)+[A-Za-z]{{2,4}}(?:{_PATH})?"),
    ("host", r"[^ \t\n\r\f\v]", rf"(?:{_HOST}+\.)+(?i:com|net|org|edu)(?:{_PATH})?"),
    ("file", f"{LETTER}{DIGIT}", rf"(?:{_LD}+(?:\.{_LD}+)*\.(?i:{_FILE_TYPES}))(?={_SPACE}|[!,.?])"),
    (
        "mail",
        "A-Za-z0-9<&",
        rf"(?:<|&(?i:lt);)?{_AN}[^\u00a0{_OUTSIDE}{{}}]*@(?:[^\u00a0{_OUTSIDE}{{}}.]+\.)*[^\u00a0{_OUTSIDE}{{}}.]+>?",
    ),
    ("mention", "@", r"@[A-Za-z_][A-Za-z0-9_]*"),
    ("hash tag", "#", rf"\#{_L}+"),
    ("cannot", "cC", rf"(?P<token>(?i:can))(?i:not){_NO_LETTER}"),
    ("gonna", "gwGW", rf"(?P<token>(?i:gon|wan))(?i:na){_NO_LETTER}"),
    ("gotta", "gG", rf"(?P<token>(?i:got))(?i:ta){_NO_LETTER}"),
    ("lemme", "glGL", rf"(?P<token>(?i:lem|gim))(?i:me){_NO_LETTER}"),
    ("tis", "'", r"(?P<token>'[tT])(?i:is|was)"),
    ("before n't", "A-Za-z\u00ad", rf"(?P<token>[A-Za-z\u00ad]*[A-MO-Za-mo-z\u00ad])(?i:n{_QQ}t)"),
    ("n't", "nN", rf"(?i:n{_QQ}t)"),
    ("before clitic", _BEGINS_WORD, rf"(?P<token>{_WORD}(?:[.!?]{_WORD})*){_Q}(?i:s|d|m|re|ve|ll)"),
    ("clitic", "&'\u2019\u0092", rf"'(?i:s|d|m|re|ve|ll){_NO_LETTER}|{_CURLY}(?i:s|d|m|re|ve|ll)"),
    (
        "elision",
        "&'\u2019\u0092",
        rf"{_Q}(?i:em|till?|cause|n{_Q}|[2-9]0s)|'[nN](?=[{_LINE_BLANKS}]|$)|{_CURLY}[nN]|{_Q}[0-9][0-9](?={_SPACE}|$)",
    ),
    ("opening elision", "dDlLjJyY", rf"(?P<token>[dDlLjJyY]{_Q}){_L}"),
    ("letter elision", "dDlLjJ", rf"[dDlLjJ]{_Q}"),
    ("closing elision", "oOdDsS", rf"(?i:ol|dunkin|somethin){_Q}"),
    ("prefix", "aApP", "(?i:pro|anti)-"),
    ("name", _AZ, rf"(?:[A-HJ-XZ]|[dlno]){_QQ}[{LETTER}]{{2,}}"),
    ("vowels", LETTER, rf"[{LETTER}]+[aeiouyAEIOUY]{_QQ}[aeiouA-Z][{LETTER}]*"),
    ("spelled", _AZ, rf"(?i:c{_Q}est|c'mon|s'mores|nat'l|cap{_Q}n|li'l|ev'ry|e'er)|(?i:o{_QQ}o)"),
    ("contd", "cC", "(?i:cont'd\\.)"),
    ("fraction", DIGIT, rf"(?:{_D}{{1,4}}[- \u00a0])?{_D}{{1,4}}(?:\\?/|\u2044){_D}{{1,4}}"),
    ("date", DIGIT, rf"{_D}{{1,2}}[-/]{_D}{{1,2}}[-/]{_D}{{2,4}}"),
    (
        "phone",
        "(+0-9",
        rf"(?:\([0-9]{{2,3}}\){_BLANK}?|(?:\+\+?)?(?:[0-9]{{2,4}}{_GAP})?[0-9]{{2,4}}{_GAP})[0-9]{{3,4}}{_GAP}?[0-9]{{3,5}}",
    ),
    (
        "number",
        f"[-+.,:{DIGIT}\u00ad\u066b\u066c]",
        rf"[-+]?(?:{_D}+(?:[.,:\u00ad\u066b\u066c]{_D}+)*|(?:[.,:\u00ad\u066b\u066c]{_D}+)+)",
    ),
    ("thing", f"{LETTER}{DIGIT}", rf"{_PART}(?:{_DASH}{_PART})*"),
    ("word", _BEGINS_WORD, _WORD),
    ("final", _AZ, rf"(?P<token>(?:{_FINAL}|[Pp][Hh]\.[Dd])\.)[\s\S]{{0,2}}"),
    ("joined", _AN, rf"{_JOINED_INITIALS}|{_JOINED}"),
    ("slashes", _AN, r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}"),
    ("initials", _AZ, r"[A-Za-z](?:\.[A-Za-z])*\."),
    (
        "last initial",
        _AZ,
        rf"(?P<token>[A-Za-z])\.{_SPACE}+(?:{_with_capital(SENTENCE_STARTERS)}|M(?i:[rs])\.|{_MARKUP}){_SPACE}",
    ),
    ("title", _AZ, rf"(?:{_TITLE})\."),
    ("numbered", _AZ, rf"(?P<token>(?i:{_one_of(BEFORE_NUMBERS)})\.){_SPACE}?{_D}"),
    (
        "before comma",
        f"{_BEGINS_WORD}{DIGIT}",
        rf"(?P<token>(?:{_BEFORE_COMMA})\.)[,:;\u3001]",
    ),
    ("ampersand", "A-Z", _AMPERSAND),
    ("language", "cCfF", r"[cC]\+\+|[cCfF]\#"),
    ("currency", "A-Z", r"[A-Z]+\$"),
    ("smiley", "<>:;=", r"[<>]?[:;=][-o*']?[()@DOP\[\\\]dp{|](?![A-Za-z0-9])"),
    (
        "face",
        "-(x'<=>^x~",
        rf"(?:-|{_FACE})_(?:-|{_FACE})|\((?:-|{_FACE})[_.]?(?:-|{_FACE})\)|\({_FACE}-(?:{_FACE}|`)\)",
    ),
    ("quotes", _ANY, rf"{_QUOTE}{{1,2}}|''"),
    (
        "runs",
        _ANY,
        rf"[!?]+|--+|\*+|_+|<<|>>|@+|\#+|\\\*|\.{{3,5}}|\.(?: \.){{2,4}}|{_RAISED}",
    ),
    ("other", _ANY, _OTHER),
]


# What would match from further on in these runs, would match from their beginning.
_HOPELESS = {
    "www": rf"(?i:www)(?:\.[^{_OUTSIDE}{{}}.!?,]+)*",
    "host": rf"{_HOST}+(?:\.{_HOST}+)*",
    "mail": rf"{_AN}[^\u00a0{_OUTSIDE}{{}}]*",
}


def _rule(name: str, first: str, pattern: str) -> Rule:
    if "(?P<token>" not in pattern:
        pattern = f"(?P<token>{pattern})"
    if not first.startswith("[") and first != _ANY:
        first = f"[{first}]"
    hopeless = _HOPELESS.get(name)
    return Rule(
        name, re.compile(first), _compiled(pattern), None if hopeless is None else _compiled(hopeless)
    )


def _compiled(pattern: str) -> re.Pattern[str]:
    """ASCII's cases alone: to Python a long s (ſ) is an s, to the tokenizer it is not."""
    return re.compile(pattern.replace("(?i:", "(?ai:"))


RULES = tuple(_rule(*row) for row in _SPECIFICATION)
