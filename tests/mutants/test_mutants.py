"""The patches fit the sources, name tests that exist, and leave no invariant out; ``make mutants`` applies them."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", Path(__file__).with_name("mutants.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module
    spec.loader.exec_module(module)
    return module


MUTANTS = load()
ALL = MUTANTS.mutants()


def test_every_invariant_has_a_mutant() -> None:
    assert {mutant.invariant for mutant in ALL} == set(range(1, 16))


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_a_patch_fits_and_its_test_exists(mutant: object, tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is needed to try the patches")
    text = mutant.path.read_text()  # type: ignore[attr-defined]
    for name in re.findall(r"^--- a/(.+)$", text, flags=re.MULTILINE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    MUTANTS.apply(mutant, tmp_path, check=True)
    file, _, function = mutant.test.partition("::")  # type: ignore[attr-defined]
    assert f"def {function}(" in (ROOT / file).read_text()


@pytest.mark.slow
def test_a_mutant_is_noticed_by_the_runner() -> None:
    script = Path(__file__).with_name("mutants.py")
    done = subprocess.run(
        [sys.executable, str(script), "13-zero-variance"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 mutants noticed" in done.stdout
