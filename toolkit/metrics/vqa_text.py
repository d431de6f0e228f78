"""How the VQA evaluators rewrite an answer before they compare it, oddities included."""

from __future__ import annotations

import re

__all__ = ["clean", "normalise_answer", "pythia_normalise", "vlmevalkit_normalise"]

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
# The official pattern means to spare a period after a digit and does not: only a digit behind it saves a period.
_PERIOD = re.compile(r"\.(?!\d)")
_PERIOD_BETWEEN = re.compile(r"(?<!\d)\.(?!\d)")
# The official call hands a flag over as the number of replacements.
_MOST_PERIODS = int(re.UNICODE)
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}

# Spelled without its apostrophe, or without one of several, a word here gets it back.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()


def _respelled() -> dict[str, str]:
    table = {}
    for word in _CONTRACTIONS:
        for place, character in enumerate(word):
            if character == "'":
                table[word[:place] + word[place + 1 :]] = word
    # One official entry works the other way round.
    table["somebody'd"] = "somebodyd"
    return table


_RESPELLED = _respelled()


def clean(text: str) -> str:
    """Line breaks and tabs to blanks, stripped: what is done to every answer."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def normalise_answer(text: str) -> str:
    """The official normalisation (VQA evaluation tools): punctuation, then number words, articles, contractions."""
    return _words(_without_punctuation(text, official=True))


def vlmevalkit_normalise(text: str) -> str:
    """VLMEvalKit's: as the official one, but a period after a digit stays."""
    return _words(_without_punctuation(clean(text), official=False))


def pythia_normalise(text: str) -> str:
    """The answer processor of Pythia, which lmms-eval uses for TextVQA and VizWiz: lower case first."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return normalise_answer(clean(text))


def _without_punctuation(text: str, *, official: bool) -> str:
    has_number = _DIGIT_COMMA_DIGIT.search(text) is not None
    result = text
    for mark in _PUNCTUATION:
        if mark in text:
            alone = has_number or f"{mark} " in text or f" {mark}" in text
            result = result.replace(mark, "" if alone else " ")
    if official:
        return _PERIOD.sub("", result, count=_MOST_PERIODS)
    return _PERIOD_BETWEEN.sub("", result, count=_MOST_PERIODS)


def _words(text: str) -> str:
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_RESPELLED.get(word, word) for word in words if word not in _ARTICLES)
