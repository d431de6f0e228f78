"""Abbreviations that keep their period as part of the word, and words that begin a sentence.

Found by asking the tokenizer about every string of one to five letters, and about longer words of English, in
small letters, with a capital, and in capitals.
"""

from __future__ import annotations

__all__ = [
    "BEFORE_NUMBERS",
    "CAPITALISED",
    "FINAL",
    "SENTENCE_STARTERS",
    "TITLES",
    "UNCAPITALISED_FINAL",
    "UNCAPITALISED_TITLES",
]

# Can end a sentence; in any case of letters. Single letters are no list but a rule of the grammar.
FINAL = frozenset(
    "al ala apr ariz assn aug bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb "
    "fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn "
    "plc rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo".split()
)

# Stand before a name or another word; in any case of letters.
TITLES = frozenset(
    "adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft gen "
    "gov govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt natl pfc ph pres prof profs pvt rep "
    "reps rev sen sens sfc sgt spc st ste supt supts treas vs wm".split()
)

# Not when all in capitals.
UNCAPITALISED_FINAL = frozenset("ppte pptes ppty pptys pte ptes pty ptys".split())
UNCAPITALISED_TITLES = frozenset("mfg mtg".split())

# Words of their own in small letters; can end a sentence.
CAPITALISED = frozenset("ark az del ill la mass miss ore pa tex wash".split())

# Only before a number.
BEFORE_NUMBERS = frozenset("art ca fig figs no nos op pp prop".split())

# After a single letter and its period, these with a capital show that the letter ended a sentence.
SENTENCE_STARTERS = frozenset(
    "a about according additionally after an as at but earlier he her here however if in it last many more now once "
    "one other our she since so some such that the their then there these they this we what when while yet you".split()
)
