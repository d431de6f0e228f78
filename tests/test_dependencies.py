"""What is imported is declared, what is declared is pinned in the tested set, and torchvision is neither."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_REPOSITORY = Path(__file__).resolve().parent.parent
_OWN = ("toolkit", "reward_models", "recipes")
_PROJECT = tomllib.loads((_REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_BASE = [Requirement(text) for text in _PROJECT["dependencies"]]
_EXTRAS = [Requirement(text) for texts in _PROJECT["optional-dependencies"].values() for text in texts]


def _pins() -> dict[str, str]:
    lines = (_REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def _imported() -> dict[str, str]:
    """Top-level modules that the packages import, each with one file that does."""
    found: dict[str, str] = {}
    for file in (file for package in _OWN for file in (_REPOSITORY / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            found.update({name.split(".")[0]: str(file.relative_to(_REPOSITORY)) for name in names})
    return {name: file for name, file in found.items() if name not in (*_OWN, *sys.stdlib_module_names)}


def test_everything_imported_is_declared() -> None:
    declared = {canonicalize_name(requirement.name) for requirement in (*_BASE, *_EXTRAS)}
    providers = importlib.metadata.packages_distributions()
    undeclared = {
        module: file
        for module, file in _imported().items()
        if not declared & {canonicalize_name(name) for name in providers.get(module, [module])}
    }
    assert not undeclared, f"imported and in no dependency list of pyproject.toml: {undeclared}"


@pytest.mark.parametrize("requirement", _BASE, ids=lambda requirement: requirement.name)
def test_base_dependencies_are_pinned_within_their_range(requirement: Requirement) -> None:
    pin = _pins().get(canonicalize_name(requirement.name))
    assert pin is not None, f"{requirement.name} is not in constraints.txt"
    assert requirement.specifier.contains(pin), f"{requirement} does not admit the tested {pin}"
    assert requirement.specifier, f"{requirement.name} has no tested range"


def test_constraints_are_plain_releases() -> None:
    odd = [
        f"{name}=={pin}"
        for name, pin in _pins().items()
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)*(\.post[0-9]+)?", pin)
    ]
    assert not odd, f"local builds or pre-releases are not everybody's to install: {odd}"


def test_torchvision_is_no_dependency() -> None:
    """A build that does not match torch breaks every processor; extras of others that pull it are refused too."""
    names = {canonicalize_name(requirement.name) for requirement in (*_BASE, *_EXTRAS)} | set(_pins())
    assert "torchvision" not in names
    assert not [requirement for requirement in (*_BASE, *_EXTRAS) if "vlm" in requirement.extras]


def test_platform_markers_keep_linux_only_packages_off_other_systems() -> None:
    markers = {requirement.name: requirement.marker for requirement in _BASE}
    assert not markers["deepspeed"].evaluate({"sys_platform": "darwin"})
    assert markers["deepspeed"].evaluate({"sys_platform": "linux"})
    assert markers["bitsandbytes"].evaluate({"platform_machine": "x86_64"})
    assert not markers["bitsandbytes"].evaluate({"platform_machine": "ppc64le"})
