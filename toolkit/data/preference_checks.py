"""What is doubtful, though not wrong, in preference rows: told by ``vlm-rlhf data check``, never a reason to stop.

Wrong are rows that nothing can be learned from or that would spoil a figure (unreadable pictures, identical
texts, a picture in two splits); those are errors of the readers. A judgement that contradicts another, a text
that is nearly the other, or an answer that mostly wins is how people judge, so it is counted and named.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

from toolkit.data.files import shown
from toolkit.records import PreferenceRow

__all__ = ["preference_warnings"]

_LENGTH_BIAS = 0.65
"""Share of pairs won by the longer (or shorter) text above which length alone is a good guess."""
_LABEL_BIAS = 0.65
"""Share of its pairs that a frequent text wins (or loses) above which the text alone is a good guess."""
_FREQUENT_SHARE = 0.05
_FREQUENT_ROWS = 20
_NAMED = 5
_NO_WORDS = re.compile(rf"[\s{re.escape(string.punctuation)}]+")


def preference_warnings(placed: Sequence[tuple[str, PreferenceRow]]) -> list[str]:
    """One line for each kind of doubt, with the number of rows and the first of them by file and line.

    Args:
        placed: pairs with the place (file and line) they come from.
    """
    decided = [(where, row) for where, row in placed if not row.tie]
    return [
        *_repeated(placed),
        *_contradicting(decided),
        *_nearly_equal(decided),
        *_length_bias([row for _, row in decided]),
        *_label_bias([row for _, row in decided]),
    ]


def _repeated(placed: Sequence[tuple[str, PreferenceRow]]) -> list[str]:
    seen: dict[Hashable, list[str]] = defaultdict(list)
    for where, row in placed:
        seen[(_question(row), row.chosen, row.rejected, row.tie)].append(where)
    places = [where for several in seen.values() for where in several[1:]]
    return _line(
        places, "repeat an earlier row (same prompt, pictures and texts); remove them or keep a weight"
    )


def _contradicting(placed: Sequence[tuple[str, PreferenceRow]]) -> list[str]:
    """Rows that prefer A over B where another prefers B over A."""
    orders: dict[Hashable, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for where, row in placed:
        orders[(_question(row), frozenset((row.chosen, row.rejected)))][row.chosen].append(where)
    places = [
        where
        for found in orders.values()
        if len(found) > 1
        for several in found.values()
        for where in several
    ]
    return _line(
        places, "contradict another row (A over B, and B over A); their share bounds any model's accuracy"
    )


def _nearly_equal(placed: Sequence[tuple[str, PreferenceRow]]) -> list[str]:
    places = [where for where, row in placed if _plain(row.chosen) == _plain(row.rejected)]
    return _line(places, "hold texts that differ in case, punctuation or spaces alone")


def _length_bias(rows: Sequence[PreferenceRow]) -> list[str]:
    lengths = [(len(row.chosen.split()), len(row.rejected.split())) for row in rows]
    unequal = [(chosen, rejected) for chosen, rejected in lengths if chosen != rejected]
    if len(unequal) < _FREQUENT_ROWS:
        return []
    longer = sum(chosen > rejected for chosen, rejected in unequal) / len(unequal)
    if max(longer, 1.0 - longer) <= _LENGTH_BIAS:
        return []
    which = "longer" if longer > 0.5 else "shorter"
    share = 100.0 * max(longer, 1.0 - longer)
    what = (
        f"the {which} text is chosen in {share:.1f} % of the {len(unequal)} rows whose texts differ in words"
    )
    return [f"length bias: {what}; a reward model can learn that instead (see its accuracy by length)"]


def _label_bias(rows: Sequence[PreferenceRow]) -> list[str]:
    wins = Counter(row.chosen for row in rows)
    losses = Counter(row.rejected for row in rows)
    warnings = []
    for text in sorted({*wins, *losses}, key=lambda text: (-(wins[text] + losses[text]), text)):
        offered = wins[text] + losses[text]
        if offered < max(_FREQUENT_ROWS, _FREQUENT_SHARE * len(rows)):
            break
        share = wins[text] / offered
        if max(share, 1.0 - share) > _LABEL_BIAS:
            warnings.append(
                f"label balance: {shown(text)} is chosen in {100.0 * share:.1f} % of the {offered} rows that offer it; "
                "a reward model can learn that without a picture"
            )
    return warnings


def _line(places: Iterable[str], what: str) -> list[str]:
    found = list(places)
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return [f"{len(found)} rows {what}: {', '.join(found[:_NAMED])}{more}"] if found else []


def _question(row: PreferenceRow) -> Hashable:
    return json.dumps(list(row.prompt), sort_keys=True, default=str), row.images


def _plain(text: str) -> str:
    return _NO_WORDS.sub(" ", text).strip().casefold()
