"""What pydantic found wrong, said in the words of the person who wrote the recipe."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from toolkit.config.document import Place, Tree

__all__ = ["describe", "explain", "key_problem", "suggestion"]

_KINDS = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_attributes_type": "a mapping",
    "model_type": "a mapping",
    "string_type": "text (quote it if it looks like a number)",
    "tuple_type": "a list",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("gt", "a number above {}"),
    "greater_than_equal": ("ge", "a number of at least {}"),
    "less_than": ("lt", "a number below {}"),
    "less_than_equal": ("le", "a number of at most {}"),
}


def describe(value: Any) -> str:
    """A value as a message shows it: scalars as in YAML, collections by kind and size."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        shown = value if len(value) <= 60 else f"{value[:57]}…"
        return f"'{shown.encode('unicode_escape').decode('ascii') if not shown.isprintable() else shown}'"
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(map(repr, list(value)[:4]))}" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return str(value)


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def key_problem(place: Place, dotted: str, expected: str, found: str, hint: str = "") -> str:
    """One problem in the form ``file:line  dotted.key: expected X, found Y; hint``."""
    return f"{place}  {dotted}: expected {expected}, found {found}{hint}"


def explain(error: Mapping[str, Any], tree: Tree, model: type[BaseModel]) -> str:
    """One pydantic error as one line, with the place in the tree where the value was written."""
    steps = _own_steps(error["loc"], tree)
    dotted = ".".join(str(step) for step in steps)
    place = _place(tree, steps)
    kind = str(error["type"])
    context = error.get("ctx", {})
    found = describe(error.get("input"))
    if kind == "extra_forbidden":
        return _unknown_key(place, dotted, steps, tree, model)
    if kind == "missing":
        return key_problem(place, dotted, "a value (the key is required)", "nothing")
    if kind in ("literal_error", "enum"):
        expected = str(context["expected"])
        choices = [word.strip().strip("'") for word in expected.replace(" or ", ", ").split(",")]
        return key_problem(
            place, dotted, f"one of {expected}", found, suggestion(str(error.get("input")), choices)
        )
    if kind == "union_tag_invalid":
        wanted, tag = str(context["expected_tags"]), str(context["tag"])
        choices = [word.strip().strip("'") for word in wanted.split(",")]
        name = str(context["discriminator"]).strip("'")
        at = _place(tree, [*steps, name])
        return key_problem(at, f"{dotted}.{name}", f"one of {wanted}", f"'{tag}'", suggestion(tag, choices))
    if kind == "union_tag_not_found":
        name = str(context["discriminator"]).strip("'")
        return key_problem(place, f"{dotted}.{name}", "a value (the key is required)", "nothing")
    return key_problem(place, dotted, _expected(kind, context, error), found)


def _expected(kind: str, context: Mapping[str, Any], error: Mapping[str, Any]) -> str:
    if kind in _KINDS:
        return _KINDS[kind]
    if kind in _BOUNDS:
        name, wording = _BOUNDS[kind]
        return wording.format(f"{context[name]:g}")
    if kind == "too_short":
        return f"at least {context['min_length']} item{'s' if context['min_length'] != 1 else ''}"
    if kind == "too_long":
        return f"at most {context['max_length']} items"
    if kind == "string_too_short":
        return "text that is not empty"
    message = str(error["msg"])
    return message.removeprefix("Value error, ").removeprefix("Input should be ")


def _own_steps(location: Sequence[str | int], tree: Tree) -> list[str | int]:
    """The location without pydantic's additions: union tags and the mark of a mapping key."""
    steps: list[str | int] = []
    here: Tree | None = tree
    for step in location:
        if step == "[key]":
            continue
        if here is not None and isinstance(here.value, dict) and step not in here.value:
            kind = here.value.get("kind")
            if kind is not None and kind.value == step:
                continue
        steps.append(step)
        here = here.child(step) if here is not None else None
    return steps


def _place(tree: Tree, steps: Sequence[str | int]) -> Place:
    """Place of the deepest existing part on the way."""
    here = tree
    for step in steps:
        below = here.child(step)
        if below is None:
            break
        here = below
    return here.place


def _unknown_key(
    place: Place, dotted: str, steps: Sequence[str | int], tree: Tree, model: type[BaseModel]
) -> str:
    key = str(steps[-1])
    owners = _of_kind(models_at(model, steps[:-1]), tree, steps[:-1])
    known = sorted({name for owner in owners for name in owner.model_fields})
    hint = suggestion(key, known)
    if not hint:
        elsewhere = [path for path in leaf_paths(model) if path.rsplit(".", 1)[-1] == key]
        hint = f"; did you mean '{elsewhere[0]}'?" if elsewhere else ""
    return key_problem(place, dotted, f"one of the keys {', '.join(known)}", "an unknown key", hint)


def _of_kind(owners: list[type[BaseModel]], tree: Tree, steps: Sequence[str | int]) -> list[type[BaseModel]]:
    """Of several classes told apart by ``kind``, the one whose kind was written."""
    here: Tree | None = tree
    for step in steps:
        here = here.child(step) if here is not None else None
    kind = here.child("kind") if here is not None else None
    if kind is None or len(owners) < 2:
        return owners
    return [
        owner for owner in owners if kind.value in typing.get_args(owner.model_fields["kind"].annotation)
    ] or owners


def models_at(model: type[BaseModel], steps: Sequence[str | int]) -> list[type[BaseModel]]:
    """The recipe classes that may stand at ``steps`` below ``model``."""
    here = [model]
    for step in steps:
        if isinstance(step, int):
            continue  # a list item: the classes were found through the list's own field
        here = [
            found
            for owner in here
            if step in owner.model_fields
            for found in _classes(owner.model_fields[step].annotation)
        ]
    return here


def leaf_paths(model: type[BaseModel], prefix: str = "", depth: int = 0) -> list[str]:
    """Dotted names of every field below ``model`` that is reached without a list index."""
    paths: list[str] = []
    for name, field in model.model_fields.items():
        dotted = f"{prefix}.{name}" if prefix else name
        paths.append(dotted)
        if depth < 4 and not _is_list(field.annotation):
            for below in _classes(field.annotation):
                paths.extend(leaf_paths(below, dotted, depth + 1))
    return paths


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(annotation) is list


def _classes(annotation: Any) -> list[type[BaseModel]]:
    """Recipe classes inside an annotation such as ``list[A | B] | None``."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [found for part in typing.get_args(annotation) for found in _classes(part)]
