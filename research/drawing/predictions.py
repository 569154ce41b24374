"""Predicted against measured effects: every scored idea as a point beside the diagonal, one mark for each who.

Numbers in, SVG out. On the diagonal an idea brought what was promised; below it less. Both axes are shares of the
baseline's score; what lies far out is drawn at the edge, so that one wild promise does not flatten the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from research.drawing.diagonal import Square
from research.drawing.scale import percent_labels

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
    square = Square(low, high, "predicted", "predicted")
    return square.svg("predictions", summary, [_point(point, square) for point in drawn], percent_labels)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Around 0, without the most extreme few."""
    ranked = sorted(values)
    out = int(len(ranked) * (1 - KEPT) / 2)
    low, high = min(0.0, ranked[out]), max(0.0, ranked[-1 - out])
    pad = (high - low) * 0.06 or 0.01
    return low - pad, high + pad


def _point(point: Point, square: Square) -> str:
    x, y = square.x(point.predicted), square.y(point.measured)
    words = f"experiment {point.experiment}, {point.name}: {point.predicted:+.2%} predicted, {point.measured:+.2%} came"
    kind = f"who-{point.who % SERIES}{' confirmed' if point.confirmed else ''}"
    title = escape(words.replace("%", " %"))
    return f'<circle class="{kind}" cx="{x:.2f}%" cy="{y:.1f}" r="4.5"><title>{title}</title></circle>'
