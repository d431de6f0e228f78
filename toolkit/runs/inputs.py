"""Digests of what a run reads: data files, image folders, files of reward terms and model weights."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from toolkit.config.reward_checks import FILE_OPTIONS
from toolkit.config.schema import (
    CaptionSource,
    DataSpec,
    ModelSpec,
    PreferencesRecipe,
    Recipe,
    RewardTerm,
    RlRecipe,
    RowsSource,
    TestDataSpec,
    VqaSource,
)

__all__ = ["file_sha256", "folder_digest", "input_digests", "input_files", "model_facts", "model_specs"]

_IMAGES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
_FULL_DIGEST_BYTES = 1 << 30


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> dict[str, Any]:
    """One digest for all images below a folder (told by their suffix: a data root may hold much else).

    Returns:
        ``files``, ``bytes``, ``sha256`` and ``of``: ``contents`` (names and bytes), or ``names and sizes`` for folders
        of more than 1 GiB, which would take minutes to read.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _IMAGES and path.is_file())
    total = sum(path.stat().st_size for path in files)
    whole = total <= _FULL_DIGEST_BYTES
    digest = hashlib.sha256()
    for path in files:
        mark = file_sha256(path) if whole else str(path.stat().st_size)
        digest.update(f"{path.relative_to(folder).as_posix()}\0{mark}\n".encode())
    return {
        "files": len(files),
        "bytes": total,
        "sha256": digest.hexdigest(),
        "of": "contents" if whole else "names and sizes",
    }


def input_files(recipe: Recipe) -> tuple[list[Path], list[Path]]:
    """Data files and image folders a recipe names, whether they exist or not."""
    files: list[Path] = []
    folders: list[Path] = []
    data = getattr(recipe, "data", None)
    if isinstance(data, DataSpec | TestDataSpec):
        sources = [*data.train, *data.val] if isinstance(data, DataSpec) else data.test
        root = Path(data.root)
        for source in sources:
            if isinstance(source, RowsSource):
                files.append(root / source.file)
                continue
            folders.append(root / source.images)
            if isinstance(source, CaptionSource):
                files.append(root / source.captions)
            elif isinstance(source, VqaSource):
                files += [root / name for name in (source.questions, source.annotations) if name is not None]
        files += [_under(root, name) for name in _named_files(recipe)]
    files += _reward_files(recipe)
    return list(dict.fromkeys(files)), list(dict.fromkeys(folders))


def _named_files(recipe: Recipe) -> Iterator[str]:
    """Files that a recipe names outside ``data``."""
    if isinstance(recipe, PreferencesRecipe) and recipe.raters not in ("simulated", "metric"):
        yield recipe.raters
    for field in ("tokenizer_texts", "train_references", "scenes", "preference_pairs"):
        value = getattr(recipe, field, None) or []
        yield from [value] if isinstance(value, str) else value


def _reward_terms(recipe: Recipe) -> list[RewardTerm]:
    if isinstance(recipe, PreferencesRecipe):
        return recipe.rank_by
    return recipe.rewards if isinstance(recipe, RlRecipe) else []


def _reward_files(recipe: Recipe) -> Iterator[Path]:
    """Files of reward terms, relative to the current folder: those of users' functions, and those that options name."""
    for term in _reward_terms(recipe):
        place, _, function = term.term.rpartition(":")
        if function and place.endswith(".py"):
            yield Path(place)
        for option in FILE_OPTIONS.get(term.term, ()):
            if term.options.get(option) is not None:
                yield Path(str(term.options[option]))


def input_digests(recipe: Recipe, recipe_path: Path | None) -> dict[str, Any]:
    """SHA-256 of every input file by path, and a digest of every image folder; missing ones are left out."""
    files, folders = input_files(recipe)
    if recipe_path is not None:
        files.insert(0, recipe_path)
    found: dict[str, Any] = {str(path): file_sha256(path) for path in files if path.is_file()}
    found |= {str(folder): folder_digest(folder) for folder in folders if folder.is_dir()}
    return found


def model_specs(value: Any, prefix: str = "") -> Iterator[tuple[str, ModelSpec]]:
    """Every model a recipe names, with its dotted key."""
    if isinstance(value, ModelSpec):
        yield prefix, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from model_specs(getattr(value, name), f"{prefix}.{name}" if prefix else name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from model_specs(item, f"{prefix}.{index}")


def model_facts(recipe: Recipe) -> dict[str, Any]:
    """Id, revision and weight digests of every model of a recipe; an adapter directory brings its base along."""
    facts = {key: _facts(spec.id, spec.revision) for key, spec in model_specs(recipe)}
    return facts | {key: _facts(name, None) for key, name in _reward_models(recipe)}


def _reward_models(recipe: Recipe) -> Iterator[tuple[str, str]]:
    if isinstance(recipe, RlRecipe):
        for index, term in enumerate(recipe.rewards):
            if term.model is not None:
                yield f"rewards.{index}.model", term.model
    for field in ("reward_model", "text_only_reward_model"):
        name = getattr(recipe, field, None)
        if name is not None:
            yield field, name


def _facts(name: str, revision: str | None) -> dict[str, Any]:
    folder = Path(name)
    facts: dict[str, Any] = {"id": name, "revision": revision}
    if not folder.is_dir():
        return facts | {"revision": _cached_commit(name, revision) or revision}
    facts["weights"] = {path.name: file_sha256(path) for path in sorted(folder.glob("*.safetensors"))}
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        config = json.loads(adapter.read_text(encoding="utf-8"))
        base = config.get("base_model_name_or_path")
        if isinstance(base, str) and base and base != name:
            facts["base"] = _facts(base, config.get("revision"))
    return facts


def _cached_commit(name: str, revision: str | None) -> str | None:
    """Commit of a hub model in the local cache, without touching the network."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        path = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(path).parent.name if isinstance(path, str) else None


def _under(root: Path, name: str) -> Path:
    """``name`` below the data root when it is there, otherwise relative to the current directory."""
    below = root / name
    return below if os.path.exists(below) else Path(name)
