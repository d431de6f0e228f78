"""YAML 1.2 documents as trees that remember where every value was written.

The tree lets a message name file and line of a wrong value, whichever of recipe, extended recipe or command-line
override it came from. Differences to a plain loader: repeated keys, merge keys and tags are refused, all of them
at once; dates stay text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as YamlNode

__all__ = ["Branch", "Place", "Tree", "merge", "parse_text", "plain", "read_tree", "set_value", "tree_of"]

_MAX_VALUES = 20_000
_TRUE = ("true", "True", "TRUE")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written: a file and its line (1-based), or a command-line override (line ``None``)."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


Branch = dict[str, "Tree"] | list["Tree"]


@dataclass(slots=True)
class Tree:
    """A value and its place. ``value`` is a scalar, a list of trees or a mapping from key to tree."""

    value: Any
    place: Place

    def child(self, key: str | int) -> Tree | None:
        """The tree below ``key`` (a mapping key or a list index), or ``None``."""
        found: Tree | None = None
        if isinstance(self.value, dict):
            found = self.value.get(str(key))
        elif isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            found = self.value[key]
        return found


def plain(tree: Tree) -> Any:
    """The tree as plain dicts, lists and scalars."""
    if isinstance(tree.value, dict):
        return {key: plain(child) for key, child in tree.value.items()}
    if isinstance(tree.value, list):
        return [plain(child) for child in tree.value]
    return tree.value


def tree_of(value: Any, place: Place) -> Tree:
    """A plain value as a tree whose every part has the same ``place``."""
    if isinstance(value, Mapping):
        return Tree({str(key): tree_of(child, place) for key, child in value.items()}, place)
    if isinstance(value, list | tuple):
        return Tree([tree_of(child, place) for child in value], place)
    return Tree(value, place)


def read_tree(path: Path, problems: list[str]) -> Tree:
    """Read one YAML document; what is wrong with it is appended to ``problems`` and an empty mapping returned."""
    empty = Tree({}, Place(str(path), 1))
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: expected UTF-8 text, found the byte 0x{error.object[error.start]:02x}")
        return empty
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror or error})")
        return empty
    tree = parse_text(text, str(path), problems)
    if tree is None:
        return empty
    if not isinstance(tree.value, dict):
        kind = {list: "a list", type(None): "nothing (the file is empty)"}.get(
            type(tree.value), "a single value"
        )
        problems.append(f"{tree.place}  expected a mapping of keys to values, found {kind}")
        return empty
    return tree


def parse_text(text: str, source: str, problems: list[str], *, line_numbers: bool = True) -> Tree | None:
    """Parse YAML text; ``None`` when it is no YAML (the reason is appended to ``problems``)."""
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(source, mark.line + 1 if mark and line_numbers else None)
        reason = ", ".join(str(part).strip() for part in (error.context, error.problem) if part)
        problems.append(f"{place}  no valid YAML: {reason}")
        return None
    except YAMLError as error:
        problems.append(f"{Place(source)}  no valid YAML: {str(error).splitlines()[0]}")
        return None
    if node is None:
        return Tree(None, Place(source, 1 if line_numbers else None))
    builder = _Builder(source, problems, line_numbers)
    return builder.build(node, builder.place(node))


class _Builder:
    """Turns composed YAML nodes into trees."""

    def __init__(self, source: str, problems: list[str], line_numbers: bool) -> None:
        self.source = source
        self.problems = problems
        self.line_numbers = line_numbers
        self.count = 0

    def place(self, node: YamlNode) -> Place:
        """Where ``node`` starts."""
        return Place(self.source, node.start_mark.line + 1 if self.line_numbers else None)

    def build(self, node: YamlNode, place: Place) -> Tree:
        """The tree of ``node``; ``place`` is that of its key when it has one."""
        self.count += 1
        if self.count > _MAX_VALUES:  # aliases of aliases grow exponentially
            if self.count == _MAX_VALUES + 1:
                self.problems.append(f"{place}  more than {_MAX_VALUES} values (aliases of aliases?)")
            return Tree(None, place)
        if isinstance(node, MappingNode):
            return self._mapping(node, place)
        if isinstance(node, SequenceNode):
            return Tree([self.build(item, self.place(item)) for item in node.value], place)
        return Tree(self._scalar(node, place) if isinstance(node, ScalarNode) else None, place)

    def _mapping(self, node: MappingNode, place: Place) -> Tree:
        children: dict[str, Tree] = {}
        for key_node, value_node in node.value:
            key_place = self.place(key_node)
            if not isinstance(key_node, ScalarNode):
                self.problems.append(f"{key_place}  expected a plain key, found a list or mapping as key")
                continue
            key = str(key_node.value)
            if key == "<<":
                self.problems.append(
                    f"{key_place}  merge keys (<<) are not supported; use extends: or repeat the values"
                )
            elif key in children:
                first = children[key].place.line
                self.problems.append(
                    f"{key_place}  {key}: repeated key, first written on line {first}; keep one"
                )
            else:
                children[key] = self.build(value_node, key_place)
        return Tree(children, place)

    def _scalar(self, node: ScalarNode, place: Place) -> Any:
        kind = str(node.tag).rsplit(":", 1)[-1]
        text = node.value
        if kind == "null":
            return None
        if kind == "bool":
            return text in _TRUE
        if kind == "int":
            return _integer(text)
        if kind == "float":
            return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan").lower())
        if kind not in ("str", "timestamp", "value"):
            self.problems.append(f"{place}  tags are not supported, found {node.tag}")
        return text


def _integer(text: str) -> int:
    digits = text.replace("_", "").lower()
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    base = {"0x": 16, "0o": 8, "0b": 2}.get(digits[:2], 10)
    return sign * int(digits[2:] if base != 10 else digits, base)


def merge(base: Tree, over: Tree) -> Tree:
    """``over`` laid on ``base``: mappings merge key by key, everything else (lists too) is replaced."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for key, child in over.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Tree(merged, over.place)


def set_value(root: Tree, dotted: str, value: Tree) -> str | None:
    """Set ``dotted`` (``a.b.c``, list items by index) in ``root``; returns what is wrong with the key, or ``None``.

    Missing mappings on the way are created; a list must already have the item.
    """
    parts = dotted.split(".")
    here = root
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(here.value, list):
            step = _list_step(here, part, ".".join(parts[:depth]))
            if isinstance(step, str):
                return step
            if last:
                here.value[step] = value
            else:
                here = here.value[step]
            continue
        if here.value is None:
            here.value = {}
        if not isinstance(here.value, dict):
            return f"{'.'.join(parts[:depth])} is a single value, it has no key {part!r}"
        if last:
            here.value[part] = value
        else:
            here = here.value.setdefault(part, Tree({}, value.place))
    return None


def _list_step(here: Tree, part: str, dotted: str) -> int | str:
    size = len(here.value)
    if part.isdecimal() and int(part) < size:
        return int(part)
    valid = f"0 to {size - 1}" if size else "none, it is empty"
    return f"{dotted} is a list: expected an index ({valid}), found {part!r}"


def walk(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Tree]]:
    """Every leaf of the tree with its dotted key."""
    items: list[tuple[str, Tree]] = []
    if isinstance(tree.value, dict):
        items = list(tree.value.items())
    elif isinstance(tree.value, list):
        items = [(str(index), child) for index, child in enumerate(tree.value)]
    if not items:
        yield prefix, tree
    for key, child in items:
        yield from walk(child, f"{prefix}.{key}" if prefix else key)
