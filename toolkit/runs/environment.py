"""What a run was made of: versions, machine, commit, command line, seeds and digests of every input."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from toolkit.config.schema import Recipe
from toolkit.runs.inputs import input_digests, model_facts
from toolkit.runs.processes import process_count

__all__ = ["describe_environment", "git_commit", "package_versions"]

_PACKAGES = (
    "vlm-rlhf",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "bitsandbytes",
    "deepspeed",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "pillow",
    "pydantic",
    "ruamel.yaml",
)


def describe_environment(recipe: Recipe, recipe_path: Path | None) -> dict[str, Any]:
    """The content of ``environment.json``; reads every input file once, imports no heavy library."""
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": [sys.executable, *sys.argv],
        "directory": os.getcwd(),
        "recipe": str(recipe_path) if recipe_path is not None else None,
        "seeds": {"run": recipe.run.seed},
        "processes": process_count(),
        "versions": package_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "git": git_commit(),
        "models": model_facts(recipe),
        "inputs": input_digests(recipe, recipe_path),
    }


def package_versions() -> dict[str, str]:
    """Installed versions of the libraries results depend on; those not installed are left out."""
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> dict[str, Any] | None:
    """Commit of the checkout this package runs from and whether files differ from it; ``None`` when installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": bool(changed)}


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
