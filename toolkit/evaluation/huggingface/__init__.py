"""Modules for Hugging Face `evaluate`: ``evaluate.load(module_path("cider"))``.

Each folder holds one script, as `evaluate` wants it, and can be pushed to a Space as it is.
"""

from __future__ import annotations

from pathlib import Path

from toolkit.errors import UsageError

__all__ = ["MODULES", "module_path"]

MODULES = ("cider", "vqa_accuracy")


def module_path(name: str) -> str:
    """The folder of module ``name``, for ``evaluate.load``.

    Raises:
        UsageError: there is no such module.
    """
    if name not in MODULES:
        raise UsageError(f"there is no module {name!r} for evaluate; there are {', '.join(MODULES)}")
    return str(Path(__file__).parent / name)
