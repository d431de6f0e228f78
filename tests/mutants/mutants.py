"""Mutants: one small patch for an invariant of the design, and the test that must notice it.

    python tests/mutants/mutants.py [NAME …]     all of them (about 4 minutes on one core), or those named

A patch begins with ``Invariant N: what it breaks.`` and ``Test: file::function``. The working tree is copied, the named
tests must pass there; then each patch is applied by itself and its test must fail. Exit code 0 if every mutant was
noticed, 1 if one survived.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
COPIED = ("toolkit", "reward_models", "recipes", "tests", "pyproject.toml")
LINKED = ("data", "docs", "benchmarks")


@dataclass(frozen=True)
class Mutant:
    """A patch with what its first two lines say."""

    path: Path
    invariant: int
    breaks: str
    test: str

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem


def mutants() -> list[Mutant]:
    """All patches beside this file, by name."""
    found = []
    for path in sorted(FOLDER.glob("*.patch")):
        first, second, *_ = path.read_text(encoding="utf-8").splitlines()
        number, _, breaks = first.removeprefix("Invariant ").partition(": ")
        found.append(Mutant(path, int(number), breaks.rstrip("."), second.removeprefix("Test: ")))
    return found


def apply(mutant: Mutant, tree: Path, *, reverse: bool = False, check: bool = False) -> None:
    """Patch ``tree``; lines around a change may have moved.

    Raises:
        RuntimeError: the patch does not fit the sources any more: write it again.
    """
    options = [*(["--reverse"] if reverse else []), *(["--check"] if check else [])]
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    done = subprocess.run(
        ["git", "apply", "-C1", *options, str(mutant.path)],
        cwd=tree, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{mutant.path.name} does not fit the sources any more: {done.stderr.strip()}")


def copy_tree(target: Path) -> None:
    """What the tests need of the working tree."""
    skipped = shutil.ignore_patterns("__pycache__", ".pytest_cache", "_bundled")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=skipped)
        else:
            shutil.copy2(source, target / name)
    for name in LINKED:
        (target / name).symlink_to(ROOT / name)


def run_tests(tree: Path, tests: Sequence[str]) -> tuple[int, str]:
    """pytest's exit code (1: a test failed) and the end of what it printed."""
    environment = {
        **os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "OMP_WAIT_POLICY": "PASSIVE",
    }  # fmt: skip
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout[-1500:]


def main(names: Sequence[str]) -> int:
    """Try every mutant; print a line for each."""
    chosen = [mutant for mutant in mutants() if not names or mutant.name in names]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        copy_tree(tree)
        code, text = run_tests(tree, sorted({mutant.test for mutant in chosen}))
        if code:
            sys.stdout.write(f"{text}\nthe tests fail without any mutant\n")
            return 1
        survivors = []
        for mutant in chosen:
            apply(mutant, tree)
            code, text = run_tests(tree, [mutant.test])
            apply(mutant, tree, reverse=True)
            noticed = code == 1
            survivors += [] if noticed else [mutant.name]
            word = (
                "noticed"
                if noticed
                else "SURVIVED"
                if code == 0
                else f"broke the run (pytest {code})\n{text}"
            )
            sys.stdout.write(f"{mutant.invariant:3}  {mutant.name:20} {word:10} {mutant.breaks}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants noticed\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
