"""Charts as SVG paths in a box of 1,000 by 1,000 units that the page stretches; labels are text of the page.

So a chart has the width of its place, and its words keep their size on a narrow screen. No library: those that draw
SVG set fixed sizes and colours, and the pages' light and dark would not reach into them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

BOX = 1000

BINS = 30
"""Bars of a histogram at most."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A label at ``at`` % of an axis."""

    at: float
    text: str


@dataclass(slots=True)
class Chart:
    """What the template draws: ``paths`` horizontal ``rules`` and ``marks`` at the bottom, each with a CSS class."""

    label: str
    """What it shows, in words, for those who do not see it."""
    y_ticks: list[Tick]
    x_ticks: list[Tick]
    x_name: str
    paths: list[tuple[str, str]] = field(default_factory=list)
    rules: list[tuple[str, float]] = field(default_factory=list)
    marks: list[tuple[str, float]] = field(default_factory=list)
    tips: list[tuple[float, float, str]] = field(default_factory=list)
    """Left edge, width and text of what is shown for the pointer."""


def over_time(values: Sequence[float], seconds: float, *, label: str, tip: Callable[[int], str]) -> Chart:
    """A value for each cell of ``seconds`` seconds, as an area."""
    scale, y_ticks = _scale(max(values, default=0.0))
    edges = _edges(len(values))
    chart = Chart(label, y_ticks, time_ticks(len(values) * seconds), "time")
    chart.paths = [("area", _steps(edges, [scale(value) for value in values], close=True))]
    chart.tips = _tips(edges, tip)
    return chart


def band_over_time(
    bounds: Sequence[tuple[float, float]],
    seconds: float,
    *,
    rules: Sequence[tuple[str, float]],
    label: str,
    tip: Callable[[int], str],
    marks: Sequence[tuple[str, float]] = (),
) -> Chart:
    """The least and the most in each cell, as a band; ``rules`` are values with a CSS class each."""
    scale, y_ticks = _scale(max([*(most for _, most in bounds), *(value for _, value in rules)], default=0.0))
    edges = _edges(len(bounds))
    low = _points(edges, [scale(least) for least, _ in bounds])
    high = _points(edges, [scale(most) for _, most in bounds])
    chart = Chart(label, y_ticks, time_ticks(len(bounds) * seconds), "time", marks=list(marks))
    chart.paths = [("band", _path([*high, *reversed(low)]) + "z"), ("line", _path(high)), ("line faint", _path(low))]
    chart.rules = [(name, scale(value)) for name, value in rules]
    chart.tips = _tips(edges, tip)
    return chart


def histogram(counts: Sequence[int], *, label: str, x_name: str) -> Chart:
    """``counts[n]`` things have the size n; the last count is of those that large or larger."""
    width, heights = bins(counts)
    scale, y_ticks = _scale(max(heights, default=0))
    edges = _edges(len(heights))
    step = max(1, math.ceil(len(heights) / 6))
    x_ticks = [Tick(_percent(edges[i]), f"{i * width:,}") for i in range(0, len(heights), step)]
    chart = Chart(label, y_ticks, x_ticks, x_name)
    chart.paths = [("bar", "".join(_bar(edges, index, scale(height)) for index, height in enumerate(heights)))]

    def tip(index: int) -> str:
        last = index == len(heights) - 1
        upper = " or more" if last else f" to {(index + 1) * width - 1:,}"
        return f"{index * width:,}{upper}: {heights[index]:,}"

    chart.tips = _tips(edges, tip)
    return chart


def bins(counts: Sequence[int]) -> tuple[int, list[int]]:
    """(width, heights) of at most :data:`BINS` bars; sizes beyond the 99th percentile go into the last."""
    top = percentile(counts, 99) + 1
    width = next(w for w in (1, 2, 5, 10, 20, 25, 50, 100, 200) if top <= w * BINS)
    bars = max(1, math.ceil(top / width))
    heights = [sum(counts[index * width : (index + 1) * width]) for index in range(bars)]
    heights[-1] += sum(counts[bars * width :])
    return width, heights


def percentile(counts: Sequence[int], percent: int) -> int:
    """The least size that at least so many per cent of the things do not exceed; 0 where there are none."""
    wanted, seen = sum(counts) * percent / 100, 0
    for size, count in enumerate(counts):
        seen += count
        if seen >= wanted and seen:
            return size
    return 0


_TIME_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200)


def time_ticks(total: float) -> list[Tick]:
    """Round times from 0 to ``total`` seconds, at most seven."""
    step = next((step for step in _TIME_STEPS if total / step <= 6), 86400 * math.ceil(total / 86400 / 6))
    count = int(total / step + 1e-9) if total else 0
    return [Tick(_percent(BOX * n * step / total) if total else 0.0, duration(n * step)) for n in range(count + 1)]


def duration(seconds: float) -> str:
    """``0.5 s``, ``45 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 or seconds == int(seconds) else f"{seconds:.1f} s"
    for large, small, unit, sub in ((60, 1, "min", "s"), (3600, 60, "h", "min"), (86400, 3600, "d", "h")):
        whole, rest = divmod(round(seconds / small), large // small)
        if whole < {60: 60, 3600: 24, 86400: 10**9}[large]:
            return f"{whole} {unit} {rest} {sub}" if rest else f"{whole} {unit}"
    raise AssertionError(seconds)


def _scale(top: float) -> tuple[Callable[[float], float], list[Tick]]:
    """From a value to its height from the top of the box, and round ticks with room for ``top``."""
    power = 10.0 ** math.floor(math.log10(top / 4)) if top > 0 else 1.0
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * 4 >= top)
    highest = step * max(1, math.ceil(top / step - 1e-9))
    ticks = [Tick(_percent(BOX * n * step / highest), f"{n * step:,.10g}") for n in range(round(highest / step) + 1)]
    return lambda value: BOX * (1 - value / highest), ticks


def _percent(units: float) -> float:
    return round(100 * units / BOX, 2)


def _edges(count: int) -> list[float]:
    return [BOX * index / max(count, 1) for index in range(count + 1)]


def _points(edges: Sequence[float], heights: Sequence[float]) -> list[tuple[float, float]]:
    return [(x, y) for i, y in enumerate(heights) for x in (edges[i], edges[i + 1])]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(points))


def _steps(edges: Sequence[float], heights: Sequence[float], *, close: bool) -> str:
    path = _path(_points(edges, heights))
    return f"{path}V{BOX}H0z" if close and path else path


def _bar(edges: Sequence[float], index: int, top: float) -> str:
    gap = min(3.0, (edges[1] - edges[0]) / 8)
    return f"M{edges[index] + gap:.1f} {BOX}V{top:.1f}H{edges[index + 1] - gap:.1f}V{BOX}z"


def _tips(edges: Sequence[float], tip: Callable[[int], str]) -> list[tuple[float, float, str]]:
    return [
        (round(edges[index], 1), round(edges[index + 1] - edges[index], 1), tip(index))
        for index in range(len(edges) - 1)
    ]
