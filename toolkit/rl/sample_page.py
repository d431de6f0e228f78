"""Samples of an iteration to look at: a page of its own with pictures, and a table for the trackers.

Neither may cost a run: pictures are thumbnails, only the newest page is kept, and what goes wrong is a warning.
"""

from __future__ import annotations

import base64
import io
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from toolkit.data.images import load_image
from toolkit.records import ImageSource
from toolkit.runs.atomic import atomic_write_text
from toolkit.runs.sample_table import SampleTable
from toolkit.runs.trackers import Trackers

__all__ = ["PAGE_FILE", "sample_page", "sample_table", "show_samples", "thumbnails"]

logger = logging.getLogger("vlm_rlhf.rl")

PAGE_FILE = "rollouts.html"
THUMBNAIL_PIXELS = 128
STAGES = ("", "/normalised", "/weighted")
OTHER_PARTS = ("total/calibrated",)  # a sum of terms, on another scale
Sample = Mapping[str, Any]
Pictures = Sequence[Image.Image | None]


def show_samples(
    folder: Path,
    step: int,
    samples: Sequence[Sample],
    images: Sequence[Sequence[ImageSource]],
    trackers: Trackers | None = None,
) -> None:
    """Write ``rollouts.html`` over that of the iteration before, and send the samples to ``trackers``.

    ``samples`` are the lines of ``rollouts-<step>.jsonl``, ``images`` the pictures of each. Never raises: what fails
    is logged.
    """
    pictures = thumbnails(images)

    def page() -> None:
        atomic_write_text(folder / PAGE_FILE, sample_page(step, samples, pictures))

    def table() -> None:
        if trackers is not None:
            first = [row[0] if row else None for row in pictures]
            trackers.log_samples(step, sample_table(samples, first))

    _attempt(page, f"{folder / PAGE_FILE} was not written")
    _attempt(table, "the trackers got no samples")


def _attempt(work: Callable[[], None], otherwise: str) -> None:
    try:
        work()
    except Exception as error:  # noqa: BLE001 - a view of the run is no reason to end it
        logger.warning("%s: %s: %s", otherwise, type(error).__name__, error)


def thumbnails(images: Sequence[Sequence[ImageSource]]) -> list[list[Image.Image | None]]:
    """The pictures of each row, at most 128 pixels a side; None where one cannot be read. Each is read once."""
    made: dict[ImageSource, Image.Image | None] = {}
    for source in (source for row in images for source in row):
        if source not in made:
            made[source] = _thumbnail(source)
    return [[made[source] for source in row] for row in images]


def _thumbnail(source: ImageSource) -> Image.Image | None:
    try:
        image = load_image(source)
        image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    except Exception as error:  # noqa: BLE001 - gone since it was trained on: the page shows that
        logger.debug("no thumbnail: %s", error)
        return None
    return image


def sample_table(samples: Sequence[Sample], pictures: Pictures) -> SampleTable:
    """The samples as a table: texts, total, every term's parts, KL, ended. ``pictures``: one (or None) a sample."""
    seen = dict.fromkeys(name for sample in samples for name in sample["parts"])
    names = [name for name in seen if name not in OTHER_PARTS]
    rows = [
        [
            sample["prompt"], sample["completion"], _finite(sample["score"]), sample["kl_nats"], sample["ended"],
            sample["tokens"], *(_finite(sample["parts"].get(name)) for name in names),
        ]
        for sample in samples
    ]  # fmt: skip
    columns = ["prompt", "completion", "total", "kl_nats", "ended", "tokens", *names]
    return SampleTable(columns, rows, pictures)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def sample_page(step: int, samples: Sequence[Sample], pictures: Sequence[Pictures]) -> str:
    """A self-contained HTML page of one iteration's samples; every text is escaped."""
    rows = "\n".join(_row(sample, row) for sample, row in zip(samples, pictures, strict=True))
    title = f"Iteration {step}: {len(samples)} completions"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body><main><h1>{title}</h1>\n"
        '<p class="soft">Total: the composite reward before the KL and missing-end penalties. Terms that '
        "say nothing of a row are left out of its card; one without a total lists them all, – being what failed or "
        "says nothing."
        f"</p>\n{rows}\n</main></body></html>\n"
    )


def _row(sample: Sample, pictures: Pictures) -> str:
    seen = "".join(_picture(picture) for picture in pictures) or '<span class="none">no picture</span>'
    end = "ended" if sample["ended"] else '<b class="cut">cut off</b>'
    references = "".join(f"<li>{escape(text)}</li>" for text in sample["references"])
    listed = (
        f"<details><summary>{len(sample['references'])} references</summary><ul>{references}</ul></details>"
    )
    completion = escape(sample["completion"]) or '<i class="soft">empty</i>'
    return (
        f'<article><div class="pictures">{seen}</div><div class="texts">'
        f'<p class="soft prompt">{escape(sample["prompt"])}</p><p class="completion">{completion}</p>'
        f'<p class="soft">{escape(str(sample["sample_id"]))} · {sample["tokens"]} tokens · {end}</p>'
        f"{listed if sample['references'] else ''}</div>"
        f'<div class="numbers"><dl><dt>total</dt><dd>{_number(sample["score"])}</dd>'
        f"<dt>KL, nats</dt><dd>{_number(sample['kl_nats'])}</dd></dl>{_parts(sample)}</div></article>"
    )


def _parts(sample: Sample) -> str:
    """The reward terms of a sample as a table; where the total is finite, a term without a number has no say."""
    parts: Mapping[str, float | None] = sample["parts"]
    names = [name for name in parts if not name.endswith(STAGES[1:]) and name not in OTHER_PARTS]
    if _finite(sample["score"]) is not None:
        names = [
            name for name in names if any(_finite(parts.get(name + stage)) is not None for stage in STAGES)
        ]
    rows = "".join(
        f"<tr><th>{escape(name)}</th>"
        + "".join(f"<td>{_number(parts.get(name + stage))}</td>" for stage in STAGES)
        + "</tr>"
        for name in names
    )
    columns = '<colgroup><col class="term"><col><col><col></colgroup>'
    return f"<table>{columns}<tr><th></th><th>raw</th><th>normalised</th><th>weighted</th></tr>{rows}</table>"


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}".replace("-", "−")


def _picture(picture: Image.Image | None) -> str:
    if picture is None:
        return '<span class="none">cannot be read</span>'
    buffer = io.BytesIO()
    kind = "png" if max(picture.size) <= THUMBNAIL_PIXELS // 2 else "jpeg"
    picture.save(buffer, format=kind, **({} if kind == "png" else {"quality": 80}))
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="" src="data:image/{kind};base64,{data}">'


_STYLE = """
:root { color-scheme: light dark; --page:#f6f7f9; --card:#fff; --ink:#1b2330; --soft:#5b6678; --line:#e3e7ed;
  --bad:#c22f3d; }
@media (prefers-color-scheme: dark) { :root { --page:#10141b; --card:#181e28; --ink:#e7ecf3; --soft:#9aa7ba;
  --line:#2a3342; --bad:#ff7f8a; } }
* { box-sizing:border-box; } body { margin:0; background:var(--page); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif; }
main { max-width:1080px; margin:0 auto; padding:28px 20px 56px; } h1 { font-size:24px; margin:0; }
p { margin:0 0 6px; } .soft,summary { color:var(--soft); font-size:13px; } .cut { color:var(--bad); }
article { display:flex; flex-wrap:wrap; gap:18px; margin-top:12px; padding:14px 16px; background:var(--card);
  border:1px solid var(--line); border-radius:10px; }
.pictures { flex:0 0 128px; display:flex; flex-direction:column; gap:6px; }
.pictures img { width:128px; max-height:128px; object-fit:contain; object-position:left top; }
.none { width:128px; padding:40px 8px; text-align:center; color:var(--soft); font-size:12px;
  border:1px dashed var(--line); border-radius:6px; }
.texts { flex:1 1 260px; min-width:0; overflow-wrap:anywhere; } .completion { font-size:17px; white-space:pre-wrap; }
.numbers { flex:0 0 384px; max-width:100%; overflow-x:auto; font-variant-numeric:tabular-nums; }
dl { display:flex; gap:8px; margin:0 0 6px; align-items:baseline; } dt { color:var(--soft); font-size:13px; }
dd { margin:0 14px 0 0; font-weight:650; } ul { margin:4px 0; padding-left:18px; font-size:13px; }
table { border-collapse:collapse; table-layout:fixed; width:384px; font-size:13px; } col { width:84px; }
.term { width:132px; } th,td { padding:2px 0 2px 8px; text-align:right; vertical-align:top; }
th { font-weight:400; color:var(--soft); } th:first-child { text-align:left; padding-left:0; overflow-wrap:anywhere; }
"""
