"""Reward terms of a recipe: names, what each of them needs, the functions of users."""

from __future__ import annotations

import ast
import importlib.util
import os
import urllib.parse
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.config import schema
from toolkit.config.findings import Findings
from toolkit.config.messages import describe, suggestion

__all__ = [
    "FILE_OPTIONS",
    "OPTIONS",
    "REQUIRED_OPTIONS",
    "REWARD_TERMS",
    "TAKEN_ARGUMENTS",
    "TAKEN_NAMES",
    "check_rewards",
]

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
# Arguments that every function of a user gets; no option may have their names.
TAKEN_ARGUMENTS = ("prompts", "completions", "completion_ids")
# The options of each term (the same test compares).
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "cider": ("end_token", "document_frequencies"),
    "bleu": ("order",),
    "vqa_accuracy": ("rule",),
    "learned": (),
    "length": ("min_tokens", "max_tokens", "per_tokens"),
    "repetition": ("ngram",),
    "bad_ending": (),
    "chair": ("objects", "synonyms", "references"),
    "object_recall": ("objects", "synonyms", "references"),
    "clipscore": ("model", "device", "batch_size"),
    "http": (
        "url",
        "timeout_seconds",
        "batch_size",
        "retries",
        "retry_pause_seconds",
        "token_env",
        "images",
    ),
}
# Options without which a term cannot be built, and what they are (the same test compares).
REQUIRED_OPTIONS = {
    "http": {"url": "the address of a service that scores completions, http://host:port/path"},
    "chair": _OBJECTS,
    "object_recall": _OBJECTS,
    "clipscore": {"model": "a directory or hub id of a CLIP model"},
}
# Options that name a file, relative to the current folder.
FILE_OPTIONS: Mapping[str, tuple[str, ...]] = {
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
    for option in FILE_OPTIONS.get(term.term, ()):
        path = term.options.get(option)
        if path is not None and not findings.exists(Path(str(path))):
            findings.add(f"{key}.options.{option}", f"expected a file, found nothing at '{path}'")
    known = OPTIONS.get(term.term)
    for option in term.options:
        if known is not None and option not in known:
            expected = f"one of {', '.join(known)}" if known else "none"
            findings.add(
                f"{key}.options.{option}",
                f"unknown option of {term.term}, expected {expected}{suggestion(option, known)}",
            )
        if ":" in term.term and option in TAKEN_ARGUMENTS:
            findings.add(
                f"{key}.options.{option}", "every function gets this argument: name the option otherwise"
            )
    if term.term == "http":
        _check_service(f"{key}.options", term.options, findings)


def _check_service(key: str, options: Mapping[str, Any], findings: Findings) -> None:
    """The address of a reward service, and whether the variable that holds its token is set here."""
    url, variable = options.get("url"), options.get("token_env")
    if "url" in options and not _is_address(url):
        findings.add(f"{key}.url", f"expected http://host:port/path or https://…, found {describe(url)}")
    if variable is not None and not os.environ.get(str(variable), "").strip():
        findings.add(
            f"{key}.token_env",
            f"expected the name of an environment variable that is set, found {describe(variable)}; "
            "export it, or take token_env out",
        )


def _is_address(url: object) -> bool:
    try:
        parts = urllib.parse.urlsplit(url) if isinstance(url, str) else None
    except ValueError:  # brackets that hold no IPv6 address
        return False
    return parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)


# ---- functions of users ----------------------------------------------------------------------------------------


def _check_user_term(dotted: str, text: str, findings: Findings) -> None:
    """The function in the file of ``file.py:function``, the top-level module of ``module:function``.

    Nothing is imported or executed; a file is parsed.
    """
    module, _, function = text.rpartition(":")
    if not function.isidentifier():
        findings.add(dotted, f"expected module:function or file.py:function, found '{text}'")
    elif module.endswith(".py"):
        if not Path(module).is_file():
            findings.add(dotted, f"expected a Python file, found nothing at '{module}'")
        else:
            _check_function(dotted, module, function, findings)
    elif not _importable(module.partition(".")[0]):
        findings.add(dotted, f"there is no module '{module.partition('.')[0]}' to import the reward from")


def _check_function(dotted: str, file: str, function: str, findings: Findings) -> None:
    """Whether a file is Python and binds a name, as far as its text tells."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python tells them when the file is executed
            tree = ast.parse(Path(file).read_bytes(), filename=file)
            compile(tree, file, "exec", dont_inherit=True)
    except SyntaxError as error:
        line = f":{error.lineno}" if error.lineno is not None else ""
        findings.add(dotted, f"{file}{line}: {type(error).__name__}: {error.msg}")
        return
    except (OSError, ValueError) as error:  # it cannot be read, or holds null bytes
        findings.add(dotted, f"{file}: {error}")
        return
    names = set(_bound_names(tree))
    if function not in names and not _binds_otherwise(tree):
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        near = suggestion(function, functions) or suggestion(function, names)
        there = f"; its functions are {', '.join(functions)}" if functions and not near else ""
        findings.add(dotted, f"{file} has no function '{function}'{near or there}")


def _bound_names(node: ast.AST) -> Iterator[str]:
    """Names that a module's own statements bind; bodies of functions and classes bind others."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child.name
        elif isinstance(child, ast.alias):
            yield child.asname or child.name.partition(".")[0]
        else:
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                yield child.id
            yield from _bound_names(child)


def _binds_otherwise(tree: ast.Module) -> bool:
    """Whether names may come from what only execution shows: a star import, ``globals()``, ``__getattr__``."""
    dynamic = {"__getattr__", "exec", "globals", "locals", "setattr", "vars"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Global) or (isinstance(node, ast.alias) and node.name == "*"):
            return True
        if getattr(node, "id", getattr(node, "name", None)) in dynamic:
            return True
    return False


def _importable(name: str) -> bool:
    """Whether a stage, which runs with the current folder on its path, finds a top-level module."""
    here = Path(name)
    return here.is_dir() or here.with_suffix(".py").is_file() or importlib.util.find_spec(name) is not None
