"""From a recipe file and overrides to a checked ``Recipe``: every problem at once, each with file and line."""

from __future__ import annotations

import contextlib
import io
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from ruamel.yaml import YAML

from toolkit.config import schema
from toolkit.config.document import Place, Tree, merge, parse_text, plain, read_tree, set_value, tree_of
from toolkit.config.messages import describe, explain, key_problem, leaf_paths, suggestion
from toolkit.config.trainer_keys import TRAINER_CLASSES, trainer_problems
from toolkit.errors import EnvironmentLacking, RecipeError, UsageError

__all__ = [
    "load_recipe",
    "parse_recipe",
    "recipe_json_schema",
    "resolved_yaml",
    "stage_classes",
    "with_defaults",
]

Overrides = Sequence[str] | Mapping[str, Any]


def stage_classes() -> dict[str, type[BaseModel]]:
    """Recipe class of every stage name."""
    union = typing.get_args(schema.Recipe)[0]
    return {typing.get_args(cls.model_fields["stage"].annotation)[0]: cls for cls in typing.get_args(union)}


def load_recipe(path: str | Path, overrides: Overrides = ()) -> schema.Recipe:
    """Read a recipe file.

    Args:
        path: a YAML file. Its ``extends: other.yaml`` (relative to the file, one level) is laid underneath.
        overrides: ``a.b.c=value`` texts (values by YAML rules, list items by index: ``systems.0.name=x``), or a
            mapping from dotted key to value.

    Raises:
        RecipeError: with every problem found, each as ``file:line  dotted.key: expected X, found Y``.
        UsageError: an override is not of the form ``key=value``.
    """
    path = Path(path)
    problems: list[str] = []
    tree = _with_base(read_tree(path, problems), path, problems)
    if problems and not tree.value:
        raise RecipeError(str(path), problems)
    return _validated(tree, str(path), overrides, problems)


def parse_recipe(
    values: Mapping[str, Any], overrides: Overrides = (), *, source: str = "recipe"
) -> schema.Recipe:
    """A recipe from plain values; raises like ``load_recipe``, with ``source`` in place of file and line."""
    return _validated(tree_of(values, Place(source)), source, overrides, [])


def resolved_yaml(recipe: schema.Recipe) -> str:
    """The whole recipe with every default written out, as YAML that ``load_recipe`` reads back unchanged."""
    buffer = io.StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    values = recipe.model_dump(mode="json")
    # Written as they are, YAML's own line breaks inside a text come back as blanks: escape them (and all else).
    writer.allow_unicode = not any(
        mark in json.dumps(values, ensure_ascii=False) for mark in "\x85\u2028\u2029"
    )
    writer.dump(values, buffer)
    return buffer.getvalue()


def with_defaults(text: str) -> str:
    """What ``resolved_yaml`` wrote in an earlier version, with the keys added since at their defaults.

    A text that is no recipe any more comes back as it is.
    """
    tree = parse_text(text, "recipe", [])
    if tree is None:
        return text
    try:  # as JSON, which has no tuples: a list is one there, and in strict Python it is not
        return resolved_yaml(TypeAdapter(schema.Recipe).validate_json(json.dumps(plain(tree))))
    except ValidationError:
        return text


def recipe_json_schema() -> dict[str, Any]:
    """JSON schema of every stage's recipe, for editors (``extends`` included)."""
    document = TypeAdapter(schema.Recipe).json_schema()
    for definition in document.get("$defs", {}).values():
        properties = definition.get("properties", {})
        if "stage" in properties:
            properties["extends"] = {"type": "string", "description": "recipe laid underneath this one"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "vlm-rlhf recipe", **document}


def _with_base(tree: Tree, path: Path, problems: list[str]) -> Tree:
    """Resolve ``extends``."""
    extends = tree.value.pop("extends", None)
    if extends is None:
        return tree
    if not isinstance(extends.value, str):
        found = describe(plain(extends))
        problems.append(key_problem(extends.place, "extends", "the path of a recipe file", found))
        return tree
    base_path = path.parent / extends.value
    if not base_path.is_file():
        problems.append(
            key_problem(extends.place, "extends", "an existing file", f"'{base_path}' (not there)")
        )
        return tree
    base = read_tree(base_path, problems)
    if (nested := base.child("extends")) is not None:
        problems.append(f"{nested.place}  extends: a recipe that is extended cannot extend another one")
    return merge(base, tree)


def _validated(tree: Tree, source: str, overrides: Overrides, problems: list[str]) -> schema.Recipe:
    _apply_overrides(tree, overrides, problems)
    model = _model(tree, source, problems)
    if model is None:
        raise RecipeError(source, problems)
    try:
        # The JSON route: YAML lists become tuples there, everything else stays strict.
        recipe = model.model_validate_json(json.dumps(plain(tree)))
    except ValidationError as error:
        problems.extend(explain(dict(item), tree, model) for item in error.errors(include_url=False))
    if problems:
        problems.extend(_trainer_block(tree))
        raise RecipeError(source, problems)
    return typing.cast(schema.Recipe, recipe)


def _trainer_block(tree: Tree) -> Iterator[str]:
    """What is wrong with the ``trainer:`` block of a recipe that is wrong elsewhere (check_recipe looks otherwise)."""
    stage, block = str(plain(tree)["stage"]), tree.child("trainer")
    if block is None or not isinstance(block.value, dict) or stage not in TRAINER_CLASSES:
        return
    with contextlib.suppress(EnvironmentLacking):  # no trainer class to compare with
        for key, problem in trainer_problems(stage, plain(block)):
            yield f"{block.value[key].place}  trainer.{key}: {problem}"


def _model(tree: Tree, source: str, problems: list[str]) -> type[BaseModel] | None:
    classes = stage_classes()
    stage = tree.child("stage")
    if stage is None:
        found = "nothing"
        problems.append(key_problem(Place(source), "stage", f"one of {', '.join(classes)}", found))
        return None
    if not isinstance(stage.value, str) or stage.value not in classes:
        found = describe(plain(stage))
        hint = suggestion(str(stage.value), classes)
        problems.append(key_problem(stage.place, "stage", f"one of {', '.join(classes)}", found, hint))
        return None
    return classes[stage.value]


def _apply_overrides(tree: Tree, overrides: Overrides, problems: list[str]) -> None:
    if isinstance(overrides, Mapping):
        for dotted, value in overrides.items():
            place = Place(f"override '{dotted}'")
            _set(tree, dotted, tree_of(value, place), place, problems)
        return
    for text in overrides:
        dotted, equals, value_text = text.partition("=")
        _check_form(text, dotted, bool(equals), tree)
        place = Place(f"override '{text}'")
        value = parse_text(value_text, str(place), problems, line_numbers=False)
        if value is not None:
            _set(tree, dotted, value, place, problems)


def _set(tree: Tree, dotted: str, value: Tree, place: Place, problems: list[str]) -> None:
    wrong = set_value(tree, dotted, value)
    if wrong is not None:
        problems.append(f"{place}  {wrong}")


def _check_form(text: str, dotted: str, has_value: bool, tree: Tree) -> None:
    """Refuse ``--flag 3`` and its kin with the spelling that works."""
    if text.startswith("-"):
        key = dotted.lstrip("-").replace("-", "_")
        key = _full_key(key, tree)
        value = text.partition("=")[2] or "VALUE"
        raise UsageError(
            f"'{text}' is no override of a recipe value", remedy=f"write it without dashes: {key}={value}"
        )
    if not has_value or not dotted or any(not part for part in dotted.split(".")):
        example = f"{_full_key(dotted or 'run.seed', tree)}=VALUE"
        raise UsageError(
            f"'{text}' is no override of a recipe value", remedy=f"write key.sub=value, e.g. {example}"
        )


def _full_key(key: str, tree: Tree) -> str:
    """The dotted key of the recipe that ``key`` most likely means."""
    stage = tree.child("stage")
    model = stage_classes().get(str(stage.value)) if stage is not None else None
    if model is None:
        return key
    paths = leaf_paths(model)
    if key in paths:
        return key
    return next((path for path in paths if path.rsplit(".", 1)[-1] == key), key)
