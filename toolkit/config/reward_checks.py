"""Reward terms of a recipe: names, what each of them needs, the functions of users."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from toolkit.config import schema
from toolkit.config.findings import Findings
from toolkit.config.messages import suggestion

__all__ = ["REQUIRED_OPTIONS", "REWARD_TERMS", "TAKEN_NAMES", "check_rewards"]

# Names of the reward terms that come along; toolkit.rewards builds them (a test compares the two lists).
REWARD_TERMS = (
    "cider",
    "bleu",
    "vqa_accuracy",
    "learned",
    "length",
    "repetition",
    "bad_ending",
    "chair",
    "object_recall",
    "clipscore",
    "http",
)
_OBJECTS = {
    "objects": "a file of the pictures' objects (COCO instances, or {image_id: [object, …]})",
    "synonyms": "a file with a line an object: name, synonym, synonym …",
}
# What the log and the held-out evaluation call their own numbers, beside those of the terms.
TAKEN_NAMES = ("total", "score", "failed_fraction", "flat_fraction", "mean_tokens")
# Options without which a term cannot be built, and what they are (the same test compares).
REQUIRED_OPTIONS = {
    "http": {"url": "the address of a service that scores completions, http://host:port/path"},
    "chair": _OBJECTS,
    "object_recall": _OBJECTS,
    "clipscore": {"model": "a directory or hub id of a CLIP model"},
}
# Options that name a file, relative to the current folder.
_FILES = {
    "cider": ("document_frequencies",),
    "chair": ("objects", "synonyms"),
    "object_recall": ("objects", "synonyms"),
}


def check_rewards(field: str, terms: Sequence[schema.RewardTerm], findings: Findings) -> None:
    """Every problem of the terms at ``field``."""
    names: set[str] = set()
    for index, term in enumerate(terms):
        key = f"{field}.{index}"
        name = term.name or term.term.rpartition(":")[2]
        if name in names:
            findings.add(f"{key}.name", f"'{name}' is taken by an earlier term; give each a name of its own")
        if name in TAKEN_NAMES:
            findings.add(
                f"{key}.name", f"'{name}' is a number of the log already; give the term another name"
            )
        names.add(name)
        if ":" in term.term:
            _check_user_term(f"{key}.term", term.term, findings)
        elif term.term not in REWARD_TERMS:
            hint = suggestion(term.term, REWARD_TERMS)
            findings.add(
                f"{key}.term",
                f"expected one of {', '.join(REWARD_TERMS)}, module:function or file.py:function, "
                f"found '{term.term}'{hint}",
            )
        if term.term == "learned" and term.model is None:
            findings.add(
                f"{key}.model",
                "expected the directory of a reward model (a learned term needs one), found nothing",
            )
        _check_options(key, term, findings)
        known = term.term in REWARD_TERMS or ":" in term.term
        if known and term.term != "learned" and term.model is not None:
            findings.add(f"{key}.model", f"only a learned term has a model, this one is '{term.term}'")
        if term.clip is not None and term.clip[0] >= term.clip[1]:
            findings.add(f"{key}.clip", f"expected [low, high], found [{term.clip[0]:g}, {term.clip[1]:g}]")


def _check_options(key: str, term: schema.RewardTerm, findings: Findings) -> None:
    for option, meaning in REQUIRED_OPTIONS.get(term.term, {}).items():
        if option not in term.options:
            findings.add(f"{key}.options.{option}", f"{term.term} needs {meaning}; found nothing")
    for option in _FILES.get(term.term, ()):
        path = term.options.get(option)
        if path is not None and not findings.exists(Path(str(path))):
            findings.add(f"{key}.options.{option}", f"expected a file, found nothing at '{path}'")


def _check_user_term(dotted: str, text: str, findings: Findings) -> None:
    """The file or top-level module of ``file.py:function`` or ``module:function`` (nothing is imported)."""
    module, _, function = text.rpartition(":")
    if not function.isidentifier():
        findings.add(dotted, f"expected module:function or file.py:function, found '{text}'")
    elif module.endswith(".py"):
        if not Path(module).is_file():
            findings.add(dotted, f"expected a Python file, found nothing at '{module}'")
    elif not _importable(module.partition(".")[0]):
        findings.add(dotted, f"there is no module '{module.partition('.')[0]}' to import the reward from")


def _importable(name: str) -> bool:
    """Whether a stage, which runs with the current folder on its path, finds a top-level module."""
    here = Path(name)
    return here.is_dir() or here.with_suffix(".py").is_file() or importlib.util.find_spec(name) is not None
