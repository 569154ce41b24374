"""The frontier as a staircase: the champion's gain over the start, step by step, and every attempt as a dot.

Numbers in, SVG out. Nothing scales its text: the drawing is as wide as its place, shapes are stretched by a nested
`svg` whose strokes keep their width (a dot is a stroke of length 0 with round ends), words stand at percentages. So one
drawing serves a desktop and a phone, and 10,000 attempts are four paths. Colours are classes of css/drawing.css.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from research.drawing.scale import Scale, percent_labels, ticks

WIDTH = 2000  # units across; half a pixel on a wide screen
TOP, BOTTOM = 18, 20  # pixels: the row of failures, and the words below
KINDS = ("improved", "worse", "no_difference", "inconclusive", "running")
DEEPEST = 0.45  # attempts may pull the lower edge down by this share of the height above 0
MANY = 400  # failures that are drawn as crosses; beyond it they are ticks


class Dot(NamedTuple):
    """One attempt. `y` is its gain over the start; a failure has none."""

    x: float
    y: float | None
    kind: str


@dataclass(frozen=True)
class Step:
    """A confirmed gain at `x`: from here on the height is `y`, somewhere between `low` and `high`."""

    x: float
    y: float
    low: float
    high: float
    title: str = ""
    href: str = ""


@dataclass(frozen=True)
class Axis:
    """The horizontal range and its marks, as (place, label)."""

    low: float
    high: float
    marks: Sequence[tuple[float, str]]


def staircase(
    steps: Sequence[Step],
    dots: Sequence[Dot],
    axis: Axis,
    *,
    waiting: Sequence[Step] = (),
    total: Step | None = None,
    summary: str = "",
    height: int = 300,
) -> str:
    """`steps` reached main; `waiting` are confirmed on top of the last of them; `total` is the closing measurement."""
    plot = height - TOP - BOTTOM
    low, high = bounds(steps, dots, waiting, total)
    across, up = Scale(axis.low, axis.high, 0, WIDTH), Scale(low, high, plot, 0)
    below = sum(dot.y is not None and dot.y < low for dot in dots)
    linked = any(step.href for step in (*steps, *waiting))
    parts = [
        f'<svg class="staircase" role="{"group" if linked else "img"}" aria-label="{escape(summary)}" '
        f'width="100%" height="{height}">',
        _rows(up, low, high, plot),
        _columns(across, axis, plot),
        f'<svg class="plot" y="{TOP}" width="100%" height="{plot}" viewBox="0 0 {WIDTH} {plot}" '
        'preserveAspectRatio="none">',
        _band(steps, across, up, "interval", axis.high),
        _band(waiting, across, up, "interval open", axis.high),
        *_dots(dots, across, up, low, plot),
        _line(steps, across, up, "champion", axis.high, 0.0),
        _line(waiting, across, up, "waiting", axis.high, steps[-1].y if steps else 0.0) if waiting else "",
        *(_corner(step, across, up, plot, "merged") for step in steps),
        *(_corner(step, across, up, plot, "open") for step in waiting),
        _whisker(total, across, up) if total else "",
        "</svg>",
        _failures(dots, across),
        _words(steps, waiting, up, plot, below),
        "</svg>",
    ]
    return "".join(parts)


def bounds(
    steps: Sequence[Step], dots: Sequence[Dot], waiting: Sequence[Step], total: Step | None
) -> tuple[float, float]:
    """The vertical range: all steps with their intervals; attempts below are clipped where they would crush them."""
    heights = [value for step in (*steps, *waiting, *([total] if total else [])) for value in (step.y, step.high)]
    tried = [dot.y for dot in dots if dot.y is not None]
    high = max([*heights, *tried, 0.0])
    high = high or 0.01
    low = max(min([*tried, *(step.low for step in (*steps, *waiting)), 0.0]), -DEEPEST * high)
    return low - 0.03 * (high - low), high + 0.08 * (high - low)


def _rows(up: Scale, low: float, high: float, plot: int) -> str:
    values = ticks(low, high, max(3, plot // 48))
    lines = []
    for value, label in zip(values, percent_labels(values), strict=True):
        y = TOP + up(value)
        lines.append(f'<line class="{"zero" if value == 0 else "rule"}" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text class="tick" x="-8" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    return "".join(lines)


def _columns(across: Scale, axis: Axis, plot: int) -> str:
    words = []
    for place, label in axis.marks:
        x = 100 * across(place) / WIDTH
        anchor = "end" if x > 97 else "middle" if x > 2 else "start"
        y = TOP + plot + 15
        words.append(f'<text class="tick" x="{x:.2f}%" y="{y}" text-anchor="{anchor}">{escape(label)}</text>')
    return "".join(words)


def _dots(dots: Sequence[Dot], across: Scale, up: Scale, low: float, plot: int) -> list[str]:
    """One path a kind. Dots that would cover each other exactly are drawn once."""
    places: dict[str, dict[str, None]] = {kind: {} for kind in (*KINDS, "clipped")}
    for dot in dots:
        if dot.y is None:
            continue
        kind = "clipped" if dot.y < low else dot.kind if dot.kind in places else "inconclusive"
        shape = "v-5" if kind == "clipped" else "h0"
        places[kind][f"M{across(dot.x):.0f} {up(dot.y):.0f}{shape}"] = None
    order = ("clipped", "inconclusive", "no_difference", "worse", "running", "improved")
    return [f'<path class="dot {kind}" d="{"".join(places[kind])}"/>' for kind in order if places[kind]]


def _stairs(heights: Sequence[tuple[float, float]], end: float) -> str:
    """`heights` are (x, y) corners in drawing units, from the left; the last one runs on to `end`."""
    first = f"M{heights[0][0]:.1f} {heights[0][1]:.1f}"
    return first + "".join(f"H{x:.1f}V{y:.1f}" for x, y in heights[1:]) + f"H{end:.1f}"


def _line(steps: Sequence[Step], across: Scale, up: Scale, kind: str, end: float, below: float) -> str:
    """The champion's line begins at the left, at the start; what waits rises from the champion, where it was found."""
    begin = 0.0 if kind == "champion" else across(steps[0].x)
    corners = [(begin, up(below)), *((across(step.x), up(step.y)) for step in steps)]
    return f'<path class="line {kind}" d="{_stairs(corners, across(end))}"/>'


def _band(steps: Sequence[Step], across: Scale, up: Scale, kind: str, end: float) -> str:
    if not steps:
        return ""
    edges = [*(across(step.x) for step in steps[1:]), across(end)]
    boxes = [
        f"M{across(step.x):.1f} {up(step.high):.1f}H{edge:.1f}V{up(step.low):.1f}H{across(step.x):.1f}z"
        for step, edge in zip(steps, edges, strict=True)
    ]
    return f'<path class="{kind}" d="{"".join(boxes)}"/>'


def _corner(step: Step, across: Scale, up: Scale, plot: int, kind: str) -> str:
    """A step's dot; a link where it leads somewhere, with a target wide enough for a finger."""
    x, y = across(step.x), up(step.y)
    dot = f'<path class="step {kind}" d="M{x:.1f} {y:.1f}h0"/>'
    title = f"<title>{escape(step.title)}</title>" if step.title else ""
    if not step.href:
        return f"<g>{title}{dot}</g>"
    return (
        f'<a href="{escape(step.href)}" aria-label="{escape(step.title)}">{title}'
        f'<path class="target" d="M{x:.1f} {max(8.0, y - 10):.1f}V{min(plot - 1.0, y + 10):.1f}"/>{dot}</a>'
    )


def _whisker(total: Step, across: Scale, up: Scale) -> str:
    """The closing measurement of champion against start: its interval and a mark."""
    x = across(total.x)
    title = f"<title>{escape(total.title)}</title>"
    return (
        f'<g>{title}<path class="whisker" d="M{x:.1f} {up(total.high):.1f}V{up(total.low):.1f}"/>'
        f'<path class="total" d="M{x:.1f} {up(total.y):.1f}h0"/></g>'
    )


def _failures(dots: Sequence[Dot], across: Scale) -> str:
    """Crosses in the row above the plot: one text whose every letter has a place of its own."""
    places = sorted({round(100 * across(dot.x) / WIDTH, 1) for dot in dots if dot.y is None})
    if not places:
        return ""
    if len(places) <= MANY:
        xs = " ".join(f"{x:g}%" for x in places)
        return f'<text class="failed" text-anchor="middle" y="12" x="{xs}">{"×" * len(places)}</text>'
    path = "".join(f"M{x:g} 4v8" for x in places)
    return (
        f'<svg width="100%" height="{TOP}" viewBox="0 0 100 {TOP}" preserveAspectRatio="none">'
        f'<path class="failed ticks" d="{path}"/></svg>'
    )


def _words(steps: Sequence[Step], waiting: Sequence[Step], up: Scale, plot: int, below: int) -> str:
    last = [*steps, *waiting][-1:]
    words = ""
    for step in last:
        label = f"{100 * step.y:+.1f} %".replace("-", "\N{MINUS SIGN}")
        y = max(12.0, TOP + up(step.high) - 7)
        words += f'<text class="value" x="100%" y="{y:.1f}" text-anchor="end">{label}</text>'
    if below:
        words += f'<text class="below" x="4" y="{TOP + plot - 8}">{below} below this range</text>'
    return words
