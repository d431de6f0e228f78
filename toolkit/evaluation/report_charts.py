"""Charts of the report page: line charts as inline SVG, interval strips and bars as plain HTML boxes.

No script, no font, no request: colours come from the page's CSS variables, so charts follow light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.evaluation.intervals import Interval
from toolkit.evaluation.report_text import escape, signed

__all__ = ["Bar", "Series", "bar_list", "interval_strips", "line_chart", "nice_ticks"]

_WIDTH, _HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 24
_SMOOTHED_FROM = 60


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its name, points (step, value) and CSS colour."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a list; ``value`` and ``mark`` (a comparison point, such as chance) are fractions of full width."""

    label: str
    value: float
    shown: str
    mark: float | None = None
    colour: str = "var(--accent)"


def line_chart(title: str, series: Sequence[Series], *, unit: str = "step") -> str:
    """An SVG of one or more lines over steps, or over what ``unit`` names.

    Long series are drawn faintly, with their running mean on top.
    """
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    ticks = nice_ticks(min(ys), max(ys))
    low, high = min(ticks[0], min(ys)), max(ticks[-1], max(ys))
    frame = _Frame(min(xs), max(xs), low, high)
    parts = [frame.grid(ticks, unit)]
    for line in series:
        smooth = len(line.points) >= _SMOOTHED_FROM
        parts.append(frame.path(line.points, line.colour, faint=smooth))
        if smooth:
            parts.append(frame.path(_running_mean(line.points), line.colour, faint=False))
    last = "; ".join(f"{line.name} ends at {line.points[-1][1]:.4g}" for line in series)
    named = len(series) > 1 or series[0].name != "training"
    legend = "".join(
        f'<span class="key"><i style="background:{line.colour}"></i>{escape(line.name) if named else "last"}'
        f" <b>{_short(line.points[-1][1])}</b></span>"
        for line in series
    )
    return (
        f'<figure class="chart"><figcaption><strong>{escape(title)}</strong><span>{legend}</span></figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}: {escape(last)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def interval_strips(rows: Sequence[tuple[str, Interval]], *, digits: int = 3) -> str:
    """Differences with their intervals on one axis; the dashed line is zero. Clear ones are coloured."""
    reach_low = min(0.0, *(row.low for _, row in rows))
    reach_high = max(0.0, *(row.high for _, row in rows))
    span = (reach_high - reach_low) or 1.0
    reach_low, span = reach_low - 0.04 * span, 1.08 * span

    def place(value: float) -> float:
        return 100.0 * (value - reach_low) / span

    lines = []
    for name, found in rows:
        kind = "up" if found.low > 0 else "down" if found.high < 0 else "flat"
        left, right = place(found.low), place(found.high)
        lines.append(
            f'<div class="strip"><span class="name">{escape(name)}</span>'
            f'<span class="track {kind}"><i class="zero" style="left:{place(0.0):.2f}%"></i>'
            f'<i class="range" style="left:{left:.2f}%;width:{max(right - left, 0.4):.2f}%"></i>'
            f'<i class="dot" style="left:{place(found.mean):.2f}%"></i></span>'
            f'<span class="value {kind}">{signed(found.mean, digits)}'
            f" <small>[{signed(found.low, digits)}, {signed(found.high, digits)}]</small></span></div>"
        )
    return f'<div class="strips">{"".join(lines)}</div>'


def bar_list(bars: Sequence[Bar]) -> str:
    """Horizontal bars with their values; a thin mark where a bar has one."""
    lines = []
    for bar in bars:
        width = 100.0 * min(max(bar.value, 0.0), 1.0)
        mark = "" if bar.mark is None else f'<i class="mark" style="left:{100.0 * bar.mark:.1f}%"></i>'
        lines.append(
            f'<div class="strip"><span class="name">{escape(bar.label)}</span><span class="bar">'
            f'<i class="fill" style="width:{width:.1f}%;background:{bar.colour}"></i>{mark}</span>'
            f'<span class="value">{escape(bar.shown)}</span></div>'
        )
    return f'<div class="strips">{"".join(lines)}</div>'


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that cover ``[low, high]``, about ``count`` of them."""
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - max(abs(low), 1.0) * 0.05, high + max(abs(high), 1.0) * 0.05
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


class _Frame:
    """Maps data to the picture."""

    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float) -> None:
        self.x_low, self.x_span = x_low, (x_high - x_low) or 1.0
        self.y_low, self.y_span = y_low, (y_high - y_low) or 1.0

    def x(self, value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - self.x_low) / self.x_span

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (value - self.y_low) / self.y_span

    def grid(self, ticks: Sequence[float], unit: str) -> str:
        right = _WIDTH - _RIGHT
        lines = [
            f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{self.y(tick):.1f}" y2="{self.y(tick):.1f}"/>'
            f'<text class="tick" x="{_LEFT - 6}" y="{self.y(tick) + 3.5:.1f}" text-anchor="end">{_short(tick)}</text>'
            for tick in ticks
        ]
        ends = ((self.x_low, "start", _LEFT), (self.x_low + self.x_span, "end", right))
        lines += [
            f'<text class="tick" x="{place}" y="{_HEIGHT - 7}" text-anchor="{anchor}">{escape(label)}</text>'
            for value, anchor, place in ends
            for label in [f"{unit} {value:.4g}" if anchor == "end" else f"{value:.4g}"]
        ]
        return "".join(lines)

    def path(self, points: Sequence[tuple[float, float]], colour: str, *, faint: bool) -> str:
        if len(points) == 1:
            x, y = points[0]
            return f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="2.6" style="fill:{colour}"/>'
        way = "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)
        weight = "stroke-width:1;opacity:.3" if faint else "stroke-width:1.8"
        return f'<path d="M{way}" style="stroke:{colour};fill:none;stroke-linejoin:round;{weight}"/>'


def _short(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _running_mean(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    half = max(2, len(points) // 30)
    smooth = []
    for position, (x, _) in enumerate(points):
        window = points[max(0, position - half) : position + half + 1]
        smooth.append((x, sum(y for _, y in window) / len(window)))
    return smooth
