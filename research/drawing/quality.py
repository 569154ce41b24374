"""Quality against training time: one line a commit, a dot a budget; and gains at two presets as dots beside a diagonal.

Numbers in, SVG out. Times stand on a logarithmic axis: each budget is a multiple of the one before. A dashed line leads
from what one commit has at a budget to where a faster one has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from research.drawing.diagonal import Square
from research.drawing.scale import MINUS, Scale, ticks

WIDTH, HEIGHT, TOP, BOTTOM = 1000, 260, 16, 34
BASE = HEIGHT - BOTTOM
PAD = 0.08
NAMES = 0.2  # of the time's range: room for names to the right of the last dots
NAME_LINE = 14


class At(NamedTuple):
    """A mean score at one budget; `half` is half its interval."""

    seconds: float
    score: float
    trials: int
    half: float | None = None


@dataclass(frozen=True)
class Quality:
    """The mean score of one commit at some budgets, shortest first."""

    name: str
    points: tuple[At, ...]


@dataclass(frozen=True)
class Leap:
    """`score` is there after `seconds` instead of `reference` seconds; `label` says how much sooner that is."""

    score: float
    reference: float
    seconds: float
    label: str


@dataclass(frozen=True)
class Both:
    """One technique's gain at two presets."""

    label: str
    screened: float
    confirmed: float


def quality(lines: Sequence[Quality], unit: str, leaps: Sequence[Leap] = ()) -> str:
    """Empty where nothing was measured."""
    drawn = [line for line in lines if line.points]
    if not drawn:
        return ""
    times = [point.seconds for line in drawn for point in line.points]
    scores = [end for line in drawn for point in line.points for end in _ends(point)]
    pad = (max(scores) - min(scores)) * PAD or abs(scores[0]) * 0.01 or 1.0
    low, high = min(scores) - pad, max(scores) + pad
    span = math.log(max(times)) - math.log(min(times)) or 1.0
    x = Scale(math.log(min(times)) - PAD * span, math.log(max(times)) + NAMES * span, 0, 100)
    y = Scale(low, high, BASE, TOP)
    parts = [f'<line class="axis" x1="0" x2="100%" y1="{BASE}" y2="{BASE}"/>']
    for mark in ticks(low, high, 4):
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>')
        parts.append(f'<text class="tick" x="-8" y="{y(mark) + 4:.1f}" text-anchor="end">{mark:.4g}</text>')
    for time in sorted(set(times)):
        at = x(math.log(time))
        parts.append(f'<text class="tick" x="{at:.2f}%" y="{BASE + 15}" text-anchor="middle">{time:g} s</text>')
    parts += [_leap(leap, x, y) for leap in leaps]
    parts += [_line(line, at % 4, x, y, unit) for at, line in enumerate(drawn)]
    parts += _names(drawn, x, y)
    words = escape(summary(drawn, unit))
    return (
        f'<svg class="quality" role="img" aria-label="{words}" width="100%" height="{HEIGHT}">'
        f"<title>{words}</title>{''.join(parts)}</svg>"
    )


def summary(lines: Sequence[Quality], unit: str) -> str:
    """The drawing in words."""
    said = (
        f"{line.name}: " + ", ".join(f"{point.score:.4g} after {point.seconds:g} s" for point in line.points)
        for line in lines
    )
    return f"{unit} against training time; " + "; ".join(said)


def _ends(point: At) -> tuple[float, float]:
    half = point.half or 0.0
    return point.score - half, point.score + half


def _leap(leap: Leap, x: Scale, y: Scale) -> str:
    start, end, down = x(math.log(leap.reference)), x(math.log(leap.seconds)), y(leap.score)
    return (
        f'<g class="leap"><line x1="{start:.2f}%" x2="{end:.2f}%" y1="{down:.1f}" y2="{down:.1f}"/>'
        f'<text class="name" x="{(start + end) / 2:.2f}%" y="{down - 5:.1f}" text-anchor="middle">'
        f"{escape(leap.label)}</text></g>"
    )


def _line(line: Quality, colour: int, x: Scale, y: Scale, unit: str) -> str:
    places = [(x(math.log(point.seconds)), y(point.score)) for point in line.points]
    path = "M" + "L".join(f"{across * WIDTH / 100:.1f} {down:.1f}" for across, down in places)
    dots = "".join(
        _dot(line.name, point, across, y, unit) for (across, _), point in zip(places, line.points, strict=True)
    )
    return (
        f'<g class="line-{colour}"><svg width="100%" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'preserveAspectRatio="none"><path d="{path}"/></svg>{dots}</g>'
    )


def _names(lines: Sequence[Quality], x: Scale, y: Scale) -> list[str]:
    """To the right of each last dot; where dots are close, one below the other."""
    parts, above = [], -math.inf
    for line in sorted(lines, key=lambda line: y(line.points[-1].score)):
        last = line.points[-1]
        above = max(y(last.score) + 4, above + NAME_LINE)
        at = x(math.log(last.seconds)) + 1
        parts.append(f'<text class="name" x="{at:.2f}%" y="{above:.1f}">{escape(line.name)}</text>')
    return parts


def _dot(name: str, point: At, across: float, y: Scale, unit: str) -> str:
    low, high = _ends(point)
    around = f" ± {point.half:.2g}" if point.half else ""
    said = f"{name}: {point.score:.5g}{around} {unit} after {point.seconds:g} s, {point.trials} trials"
    bar = f'<line class="interval" x1="{across:.2f}%" x2="{across:.2f}%" y1="{y(low):.1f}" y2="{y(high):.1f}"/>'
    dot = f'<circle cx="{across:.2f}%" cy="{y(point.score):.1f}" r="4.5"><title>{escape(said)}</title></circle>'
    return (bar if point.half else "") + dot


def both(points: Sequence[Both], screen_preset: str, preset: str, unit: str) -> str:
    """Gains at the screening preset across, at the project's own upwards; empty without points."""
    if not points:
        return ""
    values = [0.0, *(value for point in points for value in (point.screened, point.confirmed))]
    pad = (max(values) - min(values)) * PAD or 1.0
    square = Square(min(values) - pad, max(values) + pad, "screened", f"gain at {screen_preset}")
    words = f"gains of {len(points)} techniques at {screen_preset} and at {preset}, in {unit}"
    return square.svg("calibration", words, [_both(point, square) for point in points], _labels)


def _both(point: Both, square: Square) -> str:
    kind = "kept" if point.confirmed >= point.screened else "less"
    said = f"{point.label}: {point.screened:+.3g} screened, {point.confirmed:+.3g} later".replace("-", MINUS)
    return (
        f'<g class="promise {kind}"><title>{escape(said)}</title>'
        f'<circle cx="{square.x(point.screened):.2f}%" cy="{square.y(point.confirmed):.1f}" r="4"/></g>'
    )


def _labels(marks: Sequence[float]) -> list[str]:
    return ["0" if mark == 0 else f"{mark:+.3g}".replace("-", MINUS) for mark in marks]
