"""What can be wrong with a recipe beyond its schema, found without loading a model."""

from __future__ import annotations

from pathlib import Path

from toolkit.config.schema import Recipe

__all__ = ["check_recipe"]


def check_recipe(recipe: Recipe, path: Path | None = None, *, launch: str = "none") -> None:
    """Raise RecipeError with every problem found."""
