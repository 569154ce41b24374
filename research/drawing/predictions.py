"""Predicted against measured effects: every scored idea as a point beside the diagonal, one mark for each who.

Numbers in, SVG out. On the diagonal an idea brought what was promised; below it less. Both axes are shares of the
baseline's score; what lies far out is drawn at the edge, so that one wild promise does not flatten the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from research.drawing.scale import Scale, percent_labels, ticks

WIDTH = 1000  # units across
TOP, BOTTOM, HEIGHT = 14, 34, 260
MOST = 400  # points drawn, the newest
KEPT = 0.97  # share of the values that the range holds
SERIES = 6  # colours; then they begin again


@dataclass(frozen=True)
class Point:
    who: int  # number of its series
    name: str
    predicted: float
    measured: float
    confirmed: bool
    experiment: int


def scatter(points: Sequence[Point], summary: str) -> str:
    """The newest points; empty where there is none. `summary` is the drawing in words."""
    drawn = list(points[-MOST:])
    if not drawn:
        return ""
    low, high = _range([value for point in drawn for value in (point.predicted, point.measured)])
    across, up = Scale(low, high, 0, 100), Scale(low, high, HEIGHT - BOTTOM, TOP)
    base = HEIGHT - BOTTOM
    parts = [
        *_axes(low, high, across, up),
        f'<svg width="100%" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">'
        f'<path class="diagonal" d="M0 {base}L{WIDTH} {TOP}"/></svg>',
        _text(1, TOP + 12, "more than predicted", "side", "start"),
        _text(99, base - 8, "less than predicted", "side", "end"),
        *(_point(point, across, up) for point in drawn),
        _text(100, HEIGHT - 3, "predicted", "axis", "end"),
    ]
    label = escape(summary)
    return (
        f'<svg class="predictions" role="img" aria-label="{label}" width="100%" height="{HEIGHT}">'
        f"<title>{label}</title>{''.join(parts)}</svg>"
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Around 0, without the most extreme few."""
    ranked = sorted(values)
    out = int(len(ranked) * (1 - KEPT) / 2)
    low, high = min(0.0, ranked[out]), max(0.0, ranked[-1 - out])
    pad = (high - low) * 0.06 or 0.01
    return low - pad, high + pad


def _axes(low: float, high: float, across: Scale, up: Scale) -> list[str]:
    base, marks = HEIGHT - BOTTOM, ticks(low, high, 4)
    parts = [f'<line class="axis" x1="0" x2="100%" y1="{base}" y2="{base}"/>']
    for mark, label in zip(marks, percent_labels(marks), strict=True):
        x, y, kind = across(mark), up(mark), "zero" if mark == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{x:.2f}%" x2="{x:.2f}%" y1="{TOP}" y2="{base}"/>')
        parts.append(f'<line class="{kind}" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
        anchor = "end" if x > 94 else "middle" if x > 4 else "start"
        parts.append(_text(x, base + 15, label, "tick", anchor))
        parts.append(f'<text class="tick" x="-8" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    return parts


def _point(point: Point, across: Scale, up: Scale) -> str:
    x, y = across(point.predicted), up(point.measured)
    words = f"experiment {point.experiment}, {point.name}: {point.predicted:+.2%} predicted, {point.measured:+.2%} came"
    kind = f"who-{point.who % SERIES}{' confirmed' if point.confirmed else ''}"
    title = escape(words.replace("%", " %"))
    return f'<circle class="{kind}" cx="{x:.2f}%" cy="{y:.1f}" r="4.5"><title>{title}</title></circle>'


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.2f}%" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
