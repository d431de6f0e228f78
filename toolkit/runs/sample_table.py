"""A table of samples with pictures, in the forms that trackers take."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["SampleTable"]

Cell = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class SampleTable:
    """Rows of plain values under ``columns``, and a small picture (or None) for each of the rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    pictures: Sequence[Image.Image | None]

    def markdown(self) -> str:
        """The rows as a Markdown table; what stands in a cell is text, never markup."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        head, rule, *body = ["| " + " | ".join(_cell(value) for value in line) + " |" for line in lines]
        return "\n".join([head, rule.replace("\\-", "-"), *body])

    def canvas(self) -> NDArray[np.uint8] | None:
        """The pictures, each in the middle of a white square of one size, ``(N, side, side, 3)``; None without any."""
        found = [picture for picture in self.pictures if picture is not None]
        if not found:
            return None
        side = max(max(picture.size) for picture in found)
        squares = []
        for picture in found:
            square = Image.new("RGB", (side, side), "white")
            square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
            squares.append(np.asarray(square))
        return np.stack(squares)

    def with_pictures(self, wrap: Any) -> tuple[list[str], list[list[Any]]]:
        """Columns and rows with ``wrap(picture)`` first, for trackers whose tables hold pictures."""
        rows = [
            [None if picture is None else wrap(picture), *row]
            for picture, row in zip(self.pictures, self.rows, strict=True)
        ]
        return ["picture", *self.columns], rows


def _cell(value: Cell) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = html.escape(" ".join(str("" if value is None else value).split()))
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+-!|~" else letter for letter in text)
