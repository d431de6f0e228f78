"""Where the files that ship with the toolkit are.

In an installed wheel that is ``toolkit/_bundled/``, in a checkout (also an editable install of it) ``data/``.
"""

from __future__ import annotations

from pathlib import Path

from toolkit.errors import EnvironmentLacking

__all__ = ["bundled_path"]

_PACKAGE = Path(__file__).resolve().parent


def bundled_path(name: str) -> Path:
    """The path of a bundled file or folder, such as ``tiny-vlm``.

    Args:
        name: path below ``data/`` of the checkout (below ``toolkit/_bundled/`` of the wheel), with ``/`` between
            folders.

    Returns:
        An absolute path that exists. Files are meant to be read only.

    Raises:
        ValueError: ``name`` is absolute or leaves the bundled folder.
        EnvironmentLacking: this installation does not carry the file.
    """
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise ValueError(f"a bundled name is a relative path without '..', got {name!r}")
    candidates = (_PACKAGE / "_bundled" / relative, _PACKAGE.parent / "data" / relative)
    for candidate in candidates:
        if candidate.exists():
            return candidate
    looked = " and ".join(str(candidate) for candidate in candidates)
    raise EnvironmentLacking(
        f"bundled file {name!r} is not in this installation (looked at {looked})",
        remedy="reinstall vlm-rlhf from a complete wheel or checkout",
    )
