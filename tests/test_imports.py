"""Every module imports; the light ones stay light."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parent.parent
_PACKAGES = ("toolkit", "reward_models", "recipes")
_HEAVY = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed", "bitsandbytes")


def _modules() -> list[str]:
    files = (file for package in _PACKAGES for file in sorted((_REPOSITORY / package).rglob("*.py")))
    names = (".".join(file.relative_to(_REPOSITORY).with_suffix("").parts) for file in files)
    return [name.removesuffix(".__init__") for name in names if not name.endswith(".__main__")]


@pytest.mark.parametrize("name", _modules())
def test_module_imports(name: str) -> None:
    importlib.import_module(name)


@pytest.mark.parametrize("name", ["toolkit", "toolkit.metrics", "toolkit.config.loading", "toolkit.cli.main"])
def test_light_modules_load_no_heavy_library(name: str) -> None:
    code = f"import sys, {name}; print(*[heavy for heavy in {_HEAVY!r} if heavy in sys.modules])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert child.stdout.split() == [], f"import {name} loads {child.stdout}"


def test_packages_have_an_init_file_and_data_has_none() -> None:
    for package in _PACKAGES:
        folders = {file.parent for file in (_REPOSITORY / package).rglob("*.py")}
        missing = [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()]
        assert not missing, (
            f"folders without __init__.py are left out of tools that follow packages: {missing}"
        )
    assert not (_REPOSITORY / "data" / "__init__.py").exists(), (
        "an installed package `data` would hide the user's own"
    )


def test_the_version_agrees_wherever_it_is_written() -> None:
    import toolkit

    citation = (_REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {toolkit.__version__}\n" in citation
    changelog = (_REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{toolkit.__version__}]" in changelog or "## [Unreleased]" in changelog
