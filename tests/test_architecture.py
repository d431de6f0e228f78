"""The house rules that a reader relies on: short files, short functions, everything public documented and typed."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parent.parent
_PACKAGES = ("toolkit", "reward_models", "recipes")
_MAX_FILE_LINES = 300
_MAX_FUNCTION_LINES = 60
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _sources() -> list[str]:
    folders = (*_PACKAGES, "data", "benchmarks")
    files = (file for folder in folders for file in (_REPOSITORY / folder).rglob("*.py"))
    return sorted(str(file.relative_to(_REPOSITORY)) for file in files)


def _package_sources() -> list[str]:
    return [name for name in _sources() if name.split("/")[0] in _PACKAGES]


@cache
def _text(name: str) -> str:
    return (_REPOSITORY / name).read_text(encoding="utf-8")


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse(_text(name))


def _functions(node: ast.AST) -> Iterator[_Function]:
    return (child for child in ast.walk(node) if isinstance(child, _Function))


def _public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, _Function | ast.ClassDef]]:
    """Public classes, functions and methods, by dotted name; what is inside a function is private."""
    for node in body:
        if isinstance(node, _Function | ast.ClassDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body, f"{prefix}{node.name}.")


def _is_override(node: ast.AST) -> bool:
    """Decorated with ``@override`` or an overload or setter: documented where it is declared."""
    decorators = getattr(node, "decorator_list", [])
    return any(ast.unparse(item).endswith((".setter", "overload", "override")) for item in decorators)


@pytest.mark.parametrize("name", _sources())
def test_file_and_its_functions_are_short(name: str) -> None:
    lines = _text(name).count("\n")
    assert lines < _MAX_FILE_LINES, (
        f"{name} has {lines} lines, fewer than {_MAX_FILE_LINES} are allowed: split it"
    )
    long = {node.name: node.end_lineno - node.lineno + 1 for node in _functions(_tree(name))}
    long = {function: count for function, count in long.items() if count >= _MAX_FUNCTION_LINES}
    assert not long, f"{name}: functions of {_MAX_FUNCTION_LINES} lines or more: {long}"


@pytest.mark.parametrize("name", _package_sources())
def test_everything_public_has_a_docstring(name: str) -> None:
    missing = [] if ast.get_docstring(_tree(name)) else ["the module"]
    public = _public(_tree(name).body)
    missing += [dotted for dotted, node in public if not ast.get_docstring(node) and not _is_override(node)]
    assert not missing, f"{name}: no docstring: {missing}"


@pytest.mark.parametrize("name", _package_sources())
def test_every_function_is_annotated(name: str) -> None:
    missing = []
    for function in _functions(_tree(name)):
        arguments = function.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        named += [item for item in (arguments.vararg, arguments.kwarg) if item is not None]
        missing += [
            f"{function.name}({item.arg})"
            for item in named
            if item.annotation is None and item.arg not in ("self", "cls")
        ]
        if function.returns is None:
            missing.append(f"{function.name} -> ?")
    assert not missing, f"{name}: without annotation: {missing}"


@pytest.mark.parametrize("name", _package_sources())
def test_no_print_and_no_bare_assert(name: str) -> None:
    printed = [
        node.lineno
        for node in ast.walk(_tree(name))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not printed, f"{name}: print on lines {printed}: write to stdout in the CLI, log elsewhere"
    asserted = [
        node.lineno for node in ast.walk(_tree(name)) if isinstance(node, ast.Assert) and node.msg is None
    ]
    assert not asserted, f"{name}: assert without a message on lines {asserted}"


def test_no_catch_all_modules() -> None:
    vague = [name for name in _sources() if Path(name).stem in ("utils", "util", "common", "helpers", "misc")]
    assert not vague, f"a module is named for what it holds: {vague}"


def test_stage_scripts_hide_no_installed_module() -> None:
    """``python recipes/sft.py`` puts ``recipes/`` first on the path: its names must belong to nobody else."""
    stems = {file.stem for file in (_REPOSITORY / "recipes").glob("*.py")} - {"__init__"}
    others = set(importlib.metadata.packages_distributions()) | set(sys.stdlib_module_names)
    assert not stems & others, f"recipes/{sorted(stems & others)} would be imported instead of the library"


def test_layers_hold() -> None:
    """The contracts of ``[tool.importlinter]``: imports point down, the hidden criterion stays hidden."""
    tool = Path(sys.executable).with_name("lint-imports")
    if not tool.exists():
        pytest.skip("import-linter is not installed (extra `dev`)")
    run = subprocess.run(
        [str(tool), "--no-cache"], cwd=_REPOSITORY, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


# Unfinished work, and addresses that are true on one machine only. The brackets keep this file from finding itself.
_FORBIDDEN = {
    "unfinished work": re.compile(r"\b(?:TO[D]O|FIX[M]E|XX[X]|HA[C]K)\b"),
    "a path of one machine": re.compile(
        r"(?<![\w./])/(?:wor[k]|roo[t]|hom[e]/\w+|opt/(?:ven[v]|wheel[s]))(?:/|\b)"
    ),
    "a package index": re.compile(r"files\.pytho[n]hosted|pyp[i]\.org|index[_-]ur[l]"),
    "a version of one build": re.compile(r"\d\+cp[u]\b"),
    "a merge conflict": re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE),
}
_BINARY = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".safetensors", ".npz", ".gz", ".ico", ".pdf"}


def _tracked() -> list[str]:
    run = subprocess.run(["git", "ls-files", "-z"], cwd=_REPOSITORY, capture_output=True, check=False)
    return [name for name in run.stdout.decode().split("\0") if name]


def test_no_forbidden_words() -> None:
    tracked = _tracked()
    if not tracked:
        pytest.skip("not a git checkout")
    found = []
    for name in tracked:
        file = _REPOSITORY / name
        if file.suffix in _BINARY or not file.is_file():
            continue
        text = file.read_text(encoding="utf-8")
        for reason, pattern in _FORBIDDEN.items():
            found += [
                f"{name}:{text.count(chr(10), 0, m.start()) + 1}: {reason}: {m[0]}"
                for m in pattern.finditer(text)
            ]
    assert not found, "\n".join(found)
