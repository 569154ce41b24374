"""Promises against what came: every audit of the champion as a point, with its interval, beside the diagonal.

Numbers in, SVG out. On the diagonal a promise was kept; below it less came than the verdicts had promised. Both axes
have the same range, so that the diagonal goes from corner to corner whatever the shape of the place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from research.drawing.diagonal import Square
from research.drawing.scale import MINUS

PAD = 0.06


@dataclass(frozen=True)
class Promise:
    """One audit: after so many merges, what was promised and what the champion gained over the start."""

    merges: int
    promised: float
    realised: float | None
    low: float | None = None
    high: float | None = None
    sign: int = 0  # 1 where more came than was promised, -1 where less, 0 where the interval holds the promise


def calibration(promises: Sequence[Promise], unit: str) -> str:
    """Audits without a measurement yet are left out; empty where none is left."""
    known = [row for row in promises if row.realised is not None]
    if not known:
        return ""
    square = Square(*_range(known), "promised", "promised: the sum of shrunk gains")
    points = [_point(row, square, unit) for row in known]
    return square.svg("calibration", summary(known, unit), points, _labels)


def summary(promises: Sequence[Promise], unit: str) -> str:
    """The drawing in words."""
    return "promised against realised gain: " + "; ".join(_words(row, unit) for row in promises)


def _words(row: Promise, unit: str) -> str:
    size = max(abs(row.promised), abs(row.realised or 0.0))
    said = (
        f"after {row.merges} merges {_signed(row.promised, size)} promised, {_signed(row.realised or 0.0, size)} came"
    )
    if row.low is not None and row.high is not None:
        said += f" [{_signed(row.low, size)}, {_signed(row.high, size)}]"
    kept = {1: "more than promised", -1: "less than promised", 0: "the promise lies within the interval"}
    return f"{said} {unit}, {kept[row.sign]}"


def _range(known: Sequence[Promise]) -> tuple[float, float]:
    values = [0.0, *(row.promised for row in known)]
    values += [value for row in known for value in (row.realised, row.low, row.high) if value is not None]
    low, high = min(values), max(values)
    pad = (high - low) * PAD or 1.0
    return (low - pad if low < 0 else low), high + pad


def _labels(marks: Sequence[float]) -> list[str]:
    step = abs(marks[1] - marks[0]) if len(marks) > 1 else 0.1
    return ["0" if mark == 0 else _signed(mark, step, 1) for mark in marks]


def _point(row: Promise, square: Square, unit: str) -> str:
    assert row.realised is not None
    x, kind = square.x(row.promised), {1: "more", -1: "less", 0: "kept"}[row.sign]
    bar = ""
    if row.low is not None and row.high is not None:
        ends = f'y1="{square.y(row.low):.1f}" y2="{square.y(row.high):.1f}"'
        bar = f'<line class="interval" x1="{x:.2f}%" x2="{x:.2f}%" {ends}/>'
    return (
        f'<g class="promise {kind}"><title>{escape(_words(row, unit))}</title>{bar}'
        f'<circle cx="{x:.2f}%" cy="{square.y(row.realised):.1f}" r="5"/></g>'
    )


def _signed(value: float, size: float, digits: int = 3) -> str:
    places = min(8, max(0, digits - 1 - math.floor(math.log10(size)))) if size else digits
    return f"{value:+.{places}f}".replace("-", MINUS)
