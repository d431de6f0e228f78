"""Bundled files are found in a checkout; names cannot leave the folder."""

from __future__ import annotations

import pytest

from toolkit.bundled import bundled_path
from toolkit.errors import EnvironmentLacking


@pytest.mark.parametrize("name", ["../pyproject.toml", "/etc/hostname", "a/../../b", ""])
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="relative path"):
        bundled_path(name)


def test_a_missing_file_is_named_with_a_remedy() -> None:
    with pytest.raises(EnvironmentLacking, match="no-such-file") as caught:
        bundled_path("no-such-file")
    assert caught.value.exit_code == 3
    assert "reinstall" in str(caught.value)
