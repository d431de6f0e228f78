"""Checking thousands of pictures before a run, in threads (PIL decodes outside the interpreter lock)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from toolkit.data.files import escaped
from toolkit.data.images import check_image
from toolkit.records import ImageSource
from toolkit.runs.progress import progress

__all__ = ["FULL_CHECK_LIMIT", "image_problems"]

FULL_CHECK_LIMIT = 50_000
"""Up to this many distinct pictures a stage decodes each of them once before it starts (JPEG of 640 x 480: 0.5 ms
on one core, so at most half a minute); with more it looks at header, size and end marker (0.05 ms).
``vlm-rlhf data check`` always decodes."""

_SHOWN_FROM = 2_000  # fewer pictures take under two seconds


def image_problems(images: Iterable[tuple[str, ImageSource]], *, full: bool | None = None) -> list[str]:
    """What is wrong with pictures, one line each, in the order given: ``where: path: problem``.

    Args:
        images: pairs of the place that names the picture (``file:line``, image id) and the picture. A path
            named in several places is opened once and reported at the first.
        full: decode every pixel; by default only up to ``FULL_CHECK_LIMIT`` distinct pictures.
    """
    places: dict[ImageSource, str] = {}
    for where, source in images:
        places.setdefault(source, where)
    decode = len(places) <= FULL_CHECK_LIMIT if full is None else full
    found = _checked(list(places), decode)
    return [
        f"{where}: {_named(source)}{problem}"
        for (source, where), problem in zip(places.items(), found, strict=True)
        if problem is not None
    ]


def _checked(sources: list[ImageSource], full: bool) -> list[str | None]:
    workers = min(8, os.cpu_count() or 1)
    if len(sources) < 64 or workers == 1:
        return [check_image(source, full=full) for source in sources]
    with ThreadPoolExecutor(max_workers=workers) as pool:
        found = pool.map(lambda source: check_image(source, full=full), sources)
        return list(
            progress(found, len(sources), "checking pictures") if len(sources) >= _SHOWN_FROM else found
        )


def _named(source: ImageSource) -> str:
    return f"{escaped(source)}: " if isinstance(source, Path) else ""
