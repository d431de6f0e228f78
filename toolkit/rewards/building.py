"""From the ``rewards:`` block of a recipe to a composite reward."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from toolkit.config.reward_checks import TAKEN_NAMES
from toolkit.config.schema import RewardTerm
from toolkit.errors import RecipeError
from toolkit.metrics import DocumentFrequencies
from toolkit.rewards.base import Reward
from toolkit.rewards.clip import ClipReward
from toolkit.rewards.composite import CompositeReward, CompositeTerm
from toolkit.rewards.metric import BleuReward, CiderReward, VqaAccuracyReward
from toolkit.rewards.objects import ChairReward, ObjectRecallReward
from toolkit.rewards.service import HttpReward
from toolkit.rewards.shaping import BadEndingReward, LengthReward, RepetitionReward
from toolkit.rewards.user import UserReward, load_function

__all__ = ["END_TOKEN", "TERM_NAMES", "build_reward", "option_names"]

# What stands for the end of a caption in CIDEr-D's n-grams; no tokenizer of captions produces it.
END_TOKEN = "<eos>"
_PLAIN: Mapping[str, Callable[..., Reward]] = {
    "bleu": BleuReward,
    "vqa_accuracy": VqaAccuracyReward,
    "length": LengthReward,
    "repetition": RepetitionReward,
    "bad_ending": BadEndingReward,
    "chair": ChairReward,
    "object_recall": ObjectRecallReward,
    "clipscore": ClipReward,
    "http": HttpReward,
}
TERM_NAMES = ("cider", "learned", *_PLAIN)
_CIDER_OPTIONS = ("end_token", "document_frequencies")


def option_names(term: str) -> tuple[str, ...]:
    """The options of a term of ``TERM_NAMES``."""
    if term in _PLAIN:
        return tuple(inspect.signature(_PLAIN[term]).parameters)
    return _CIDER_OPTIONS if term == "cider" else ()


def build_reward(
    terms: Sequence[RewardTerm],
    *,
    references: Mapping[Any, Sequence[str]],
    learned: Mapping[str, Reward] | None = None,
) -> CompositeReward:
    """The composite reward of a recipe.

    Args:
        terms: the recipe's ``rewards``.
        references: image id → reference captions of the *training* split, for CIDEr-D's document frequencies.
        learned: reward models by the path in the term's ``model``. They are passed in because this layer
            does not know how to load them.

    Raises:
        RecipeError: unknown terms, unknown options, options out of range, repeated names, a learned term
            without its model; all at once.
    """
    problems: list[str] = []
    built: list[CompositeTerm] = []
    for index, spec in enumerate(terms):
        name = spec.name or _short_name(spec.term)
        if name in {term.name for term in built}:
            problems.append(f"rewards.{index}.name: {name!r} is taken; give each term a name of its own")
            continue
        if name in TAKEN_NAMES:
            problems.append(
                f"rewards.{index}.name: {name!r} is a number of the log; give the term another name"
            )
            continue
        try:
            built.append(CompositeTerm(name, _build(spec, name, references, learned or {}), spec))
        except RecipeError as error:
            problems += [f"rewards.{index}: {problem}" for problem in error.problems]
        except (TypeError, ValueError) as error:
            problems.append(f"rewards.{index}.options: {error}")
    if problems:
        raise RecipeError("rewards", problems)
    return CompositeReward(built)


def _short_name(term: str) -> str:
    """``cider`` for ``cider``, the function's name for a user's function."""
    return term.rpartition(":")[2]


def _build(
    spec: RewardTerm, name: str, references: Mapping[Any, Sequence[str]], learned: Mapping[str, Reward]
) -> Reward:
    if ":" in spec.term:
        return UserReward(load_function(spec.term), name=name, options=spec.options)
    if spec.term == "cider":
        return _cider(spec, references)
    if spec.term == "learned":
        _check_options(spec)
        if spec.model is None or spec.model not in learned:
            raise RecipeError(name, f"a learned term needs its reward model, found model: {spec.model}")
        return learned[spec.model]
    if spec.term not in _PLAIN:
        close = difflib.get_close_matches(spec.term, TERM_NAMES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; expected one of {', '.join(TERM_NAMES)}"
        raise RecipeError(name, f"unknown reward term {spec.term!r}{hint} or a module:function")
    factory = _PLAIN[spec.term]
    parameters = inspect.signature(factory).parameters
    _check_options(spec)
    lacking = [
        key for key, value in parameters.items() if value.default is value.empty and key not in spec.options
    ]
    if lacking:
        raise RecipeError(spec.term, f"options: {spec.term} needs {', '.join(lacking)}")
    return factory(**spec.options)


def _cider(spec: RewardTerm, references: Mapping[Any, Sequence[str]]) -> CiderReward:
    _check_options(spec)
    end_token = END_TOKEN if spec.options.get("end_token", True) else None
    path = spec.options.get("document_frequencies")
    if path is not None:
        return CiderReward(DocumentFrequencies.load(path), end_token=end_token)
    if not references:
        raise RecipeError("cider", "cider needs reference captions in the training data, found none")
    frequencies = DocumentFrequencies.from_references(references, end_token=end_token)
    return CiderReward(frequencies, end_token=end_token)


def _check_options(spec: RewardTerm) -> None:
    known = option_names(spec.term)
    unknown = sorted(set(spec.options) - set(known))
    if unknown:
        expected = ", ".join(known) or "none"
        raise RecipeError(spec.term, f"options: unknown {', '.join(unknown)}; {spec.term} takes {expected}")
