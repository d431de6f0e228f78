"""The built wheel works in an environment of its own, from an empty folder, without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_REPOSITORY = Path(__file__).resolve().parent.parent
_MAX_WHEEL_BYTES = 10_000_000


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run without the checkout on the path (``tests/offline`` stays, to refuse the network)."""
    environment = {**os.environ, "PYTHONPATH": str(_REPOSITORY / "tests" / "offline")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip(
        "hatchling", reason="building offline needs hatchling in the environment (extra `dev`)"
    )
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = _run(build, _REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of a new environment with the wheel; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = Path(
        _run(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder
        ).stdout.strip()
    )
    # .pth lines of this environment (an editable install of the checkout) are not followed from there.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
    ]
    done = _run([*install, "--ignore-installed", str(wheel)], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bin"


def test_wheel_holds_what_users_need_and_no_more(wheel: Path) -> None:
    assert wheel.stat().st_size <= _MAX_WHEEL_BYTES
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"toolkit", "reward_models", "recipes"}, tops
    assert "toolkit/py.typed" in names
    assert not [name for name in names if name.endswith((".pyc", ".bin", ".pkl", ".pt"))]
    for pattern in ("configs/**/*.yaml", "accelerate/**/*.yaml"):
        wanted = {
            f"recipes/{file.relative_to(_REPOSITORY / 'recipes')}"
            for file in (_REPOSITORY / "recipes").glob(pattern)
        }
        assert wanted, f"no file matches recipes/{pattern}"
        assert wanted <= set(names), wanted - set(names)


def test_wheel_carries_the_tiny_model(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "toolkit/_bundled/tiny-vlm/model.safetensors" in names
    assert "toolkit/_bundled/tiny-vlm/config.json" in names


def test_installed_package_is_used_and_finds_its_files(installed: Path, tmp_path: Path) -> None:
    code = "import toolkit, toolkit.bundled as b; print(toolkit.__file__); print(b.bundled_path('tiny-vlm'))"
    done = _run([str(installed / "python"), "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    package, bundled = done.stdout.splitlines()
    assert package.startswith(str(installed.parent))
    assert bundled.endswith("/toolkit/_bundled/tiny-vlm")


@pytest.mark.parametrize(
    "command",
    [["vlm-rlhf", "--help"], ["vlm-rlhf", "recipes", "ls"], ["python", "-m", "reward_models", "--help"]],
)
def test_commands_run_from_an_empty_folder(installed: Path, tmp_path: Path, command: list[str]) -> None:
    done = _run([str(installed / command[0]), *command[1:]], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert list(tmp_path.iterdir()) == []


def test_data_of_the_user_is_not_hidden(installed: Path, tmp_path: Path) -> None:
    """No package named ``data`` is installed: a script of the user may have its own."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "__init__.py").write_text("MINE = True\n", encoding="utf-8")
    done = _run([str(installed / "python"), "-c", "import toolkit, data; print(data.MINE)"], tmp_path)
    assert done.stdout.strip() == "True", done.stderr
