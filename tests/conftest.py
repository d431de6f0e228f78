"""What every test gets: no network, no telemetry, small thread pools; and the fixtures that several areas share."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent
OFFLINE = REPOSITORY / "tests" / "offline"

# Before any test module imports torch or a Hugging Face library: they read these once.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
    "WANDB_MODE": "disabled",
    "DO_NOT_TRACK": "1",
    # Widths of rendered tables and of argparse's help must not depend on the terminal.
    "COLUMNS": "120",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
# Children (stages run as `python -m recipes.<stage>`) find the checkout, and refuse the network, from any folder.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(OFFLINE), str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
)
sys.path.insert(0, str(OFFLINE))

import network_guard  # noqa: E402

# A busy machine is no counterexample: no time limit for one example.
settings.register_profile("vlm-rlhf", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vlm-rlhf")

# What a marker needs on the machine, and the commands that provide it.
_COMMANDS = {"java": ("java",), "browser": ("chromium", "chromium-browser", "google-chrome")}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests whose marker names something that this machine lacks."""
    for marker, commands in _COMMANDS.items():
        if item.get_closest_marker(marker) and not any(map(shutil.which, commands)):
            pytest.skip(f"needs {marker}: none of {', '.join(commands)} is installed")


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest) -> Iterator[None]:
    """Connections to other machines are refused, except in tests marked ``network``."""
    if request.node.get_closest_marker("network"):
        yield
        return
    network_guard.install()
    yield
    network_guard.remove()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of larger reference data named by ``VLM_RLHF_TEST_DATA``; the test is skipped without it."""
    value = os.environ.get("VLM_RLHF_TEST_DATA")
    if not value:
        pytest.skip(
            "VLM_RLHF_TEST_DATA is not set: this test compares with reference data outside the repository"
        )
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"VLM_RLHF_TEST_DATA={value} is not a folder")
    return folder


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is also the current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
