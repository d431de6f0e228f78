"""Abbreviations that keep their period as part of the word, and words that begin a sentence.

Found by asking the tokenizer about every string of one to five letters, and about longer words of English, in
small letters, with a capital, and in capitals.
"""

from __future__ import annotations

__all__ = ["ABBREVIATIONS", "BEFORE_NUMBERS", "CAPITALISED", "SENTENCE_STARTERS", "UNCAPITALISED"]

# In any case. Single letters are no list but a rule of the grammar.
ABBREVIATIONS = frozenset(
    "adj adm adv al ala alex apr ariz assn assoc asst atty attys aug ave bancorp bhd bldg blvd brig bros calif capt "
    "cf cie cmdr co col colo comdr conn corp cos cpl ct dak dec dept det dr drs elec ens esq est etc ext feb fla "
    "fri ft ga gen gov govs hon inc ind insp intl invt jan jos jr jul jun kan kans ky lieut lt ltd maj mar md "
    "messrs mich minn mlle mme mo mon mont mr mrs ms msgr mt natl neb nev nov oct okla penn pfc ph plc pres prof "
    "profs pvt rd rep reps rev rt sen sens sep sept seq sfc sgt spc sq sr st ste supt supts sys tel tenn thu thurs "
    "treas tue tues univ va vs vt wed wis wisc wm wyo".split()
)

# Not when all in capitals.
UNCAPITALISED = frozenset("mfg mtg ppte pptes ppty pptys pte ptes pty ptys".split())

# Words of their own in small letters.
CAPITALISED = frozenset("ark az del ill la mass miss ore pa tex wash".split())

# Only before a number.
BEFORE_NUMBERS = frozenset("art ca fig figs no nos op pp prop".split())

# After a single letter and its period, these with a capital show that the letter ended a sentence.
SENTENCE_STARTERS = frozenset(
    "a about according additionally after an as at but earlier he her here however if in it last many more now once "
    "one other our she since so some such that the their then there these they this we what when while yet you".split()
)
