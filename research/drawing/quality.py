"""Quality against training time: one line a commit, a dot a budget; and gains at two presets as dots beside a diagonal.

Numbers in, SVG out. Times stand on a logarithmic axis: each budget is a multiple of the one before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from research.drawing.diagonal import Square
from research.drawing.scale import MINUS, Scale, ticks

WIDTH, HEIGHT, TOP, BOTTOM = 1000, 260, 16, 34
BASE = HEIGHT - BOTTOM
PAD = 0.08


@dataclass(frozen=True)
class Quality:
    """The mean score of one commit at some budgets: (seconds, score, trials), shortest first."""

    name: str
    points: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Both:
    """One technique's gain at two presets."""

    label: str
    screened: float
    confirmed: float


def quality(lines: Sequence[Quality], unit: str) -> str:
    """Empty where nothing was measured."""
    drawn = [line for line in lines if line.points]
    if not drawn:
        return ""
    times = [point[0] for line in drawn for point in line.points]
    scores = [point[1] for line in drawn for point in line.points]
    pad = (max(scores) - min(scores)) * PAD or abs(scores[0]) * 0.01 or 1.0
    low, high = min(scores) - pad, max(scores) + pad
    span = math.log(max(times)) - math.log(min(times)) or 1.0
    x = Scale(math.log(min(times)) - 0.08 * span, math.log(max(times)) + 0.08 * span, 0, 100)
    y = Scale(low, high, BASE, TOP)
    parts = [f'<line class="axis" x1="0" x2="100%" y1="{BASE}" y2="{BASE}"/>']
    for mark in ticks(low, high, 4):
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>')
        parts.append(f'<text class="tick" x="-8" y="{y(mark) + 4:.1f}" text-anchor="end">{mark:.4g}</text>')
    for time in sorted(set(times)):
        at = x(math.log(time))
        parts.append(f'<text class="tick" x="{at:.2f}%" y="{BASE + 15}" text-anchor="middle">{time:g} s</text>')
    parts += [_line(line, at % 4, x, y, unit) for at, line in enumerate(drawn)]
    words = escape(summary(drawn, unit))
    return (
        f'<svg class="quality" role="img" aria-label="{words}" width="100%" height="{HEIGHT}">'
        f"<title>{words}</title>{''.join(parts)}</svg>"
    )


def summary(lines: Sequence[Quality], unit: str) -> str:
    """The drawing in words."""
    said = (
        f"{line.name}: " + ", ".join(f"{score:.4g} after {seconds:g} s" for seconds, score, _ in line.points)
        for line in lines
    )
    return f"{unit} against training time; " + "; ".join(said)


def _line(line: Quality, colour: int, x: Scale, y: Scale, unit: str) -> str:
    places = [(x(math.log(seconds)) * WIDTH / 100, y(score)) for seconds, score, _ in line.points]
    path = "M" + "L".join(f"{across:.1f} {down:.1f}" for across, down in places)
    dots = "".join(
        f'<circle cx="{across / WIDTH * 100:.2f}%" cy="{down:.1f}" r="4.5">'
        f"<title>{escape(line.name)}: {score:.5g} {escape(unit)} after {seconds:g} s, {count} trials</title></circle>"
        for (across, down), (seconds, score, count) in zip(places, line.points, strict=True)
    )
    across, down = places[-1]
    return (
        f'<g class="line-{colour}"><svg width="100%" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'preserveAspectRatio="none"><path d="{path}"/></svg>{dots}'
        f'<text class="name" x="{across / WIDTH * 100:.2f}%" y="{down - 9:.1f}" text-anchor="end">'
        f"{escape(line.name)}</text></g>"
    )


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
