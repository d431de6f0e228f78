"""Problems found in a recipe that is already well-formed, with the line where each value was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.config.document import Tree, merge, read_tree
from toolkit.config.schema import Recipe

__all__ = ["Findings"]


class Findings:
    """Collects problems as ``file:line  dotted.key: text``.

    Args:
        recipe: the recipe being checked.
        path: the recipe's file; without it, or where a value came from an override, no line is given.
        produced: folders that earlier stages of a chain will have written; what lies below them is not missing.
    """

    def __init__(self, recipe: Recipe, path: Path | None = None, produced: tuple[Path, ...] = ()) -> None:
        self._recipe = recipe
        self.path = path
        self.produced = produced
        self.problems: list[str] = []
        self._tree = _tree(path)

    def add(self, dotted: str, text: str) -> None:
        """Record a problem of the value at ``dotted``."""
        line = self._line(dotted)
        self.problems.append(f"{line}  {dotted}: {text}" if line else f"{dotted}: {text}")

    def exists(self, path: Path) -> bool:
        """Whether a path is there, or will be when its turn comes in a chain."""
        absolute = path.absolute()
        folders = [folder.absolute() for folder in self.produced]
        return path.exists() or any(
            absolute.is_relative_to(folder) or folder.is_relative_to(absolute) for folder in folders
        )

    def _line(self, dotted: str) -> str:
        """Where the value, or the mapping it is missing from, was written; the file alone when overridden."""
        if self._tree is None:
            return ""
        here, value = self._tree, self._recipe
        for part in dotted.split("."):
            below = here.child(int(part) if part.isdecimal() else part)
            if below is None:
                break
            here, value = below, _inside(value, part)
        overridden = not isinstance(here.value, dict | list) and here.value != value
        return str(self.path) if here is self._tree or overridden else str(here.place)


def _inside(value: Any, part: str) -> Any:
    if isinstance(value, list | tuple) and part.isdecimal() and int(part) < len(value):
        return value[int(part)]
    return value.get(part) if isinstance(value, dict) else getattr(value, part, None)


def _tree(path: Path | None) -> Tree | None:
    if path is None:
        return None
    tree = read_tree(path, [])
    extends: Any = tree.child("extends")
    return merge(read_tree(path.parent / str(extends.value), []), tree) if extends is not None else tree
