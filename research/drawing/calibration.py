"""Promises against what came: every audit of the champion as a point, with its interval, beside the diagonal.

Numbers in, SVG out. On the diagonal a promise was kept; below it less came than the verdicts had promised. Both axes
have the same range, so that the diagonal goes from corner to corner whatever the shape of the place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from research.drawing.scale import MINUS, Scale, ticks

WIDTH = 1000  # units across
TOP, BOTTOM, HEIGHT = 14, 34, 260
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
    low, high = _range(known)
    across, up = Scale(low, high, 0, 100), Scale(low, high, HEIGHT - BOTTOM, TOP)
    base = HEIGHT - BOTTOM
    parts = [
        *_axes(low, high, across, up),
        f'<svg width="100%" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">'
        f'<path class="diagonal" d="M0 {base}L{WIDTH} {TOP}"/></svg>',
        _text(2, TOP + 12, "more than promised", "side", "start"),
        _text(98, base - 8, "less than promised", "side", "end"),
        *(_point(row, across, up, unit) for row in known),
        _text(100, HEIGHT - 3, "promised: the sum of shrunk gains", "axis", "end"),
    ]
    label = escape(summary(known, unit))
    return (
        f'<svg class="calibration" role="img" aria-label="{label}" width="100%" height="{HEIGHT}">'
        f"<title>{label}</title>{''.join(parts)}</svg>"
    )


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


def _axes(low: float, high: float, across: Scale, up: Scale) -> list[str]:
    marks = ticks(low, high, 4)
    step = abs(marks[1] - marks[0]) if len(marks) > 1 else 0.1
    base = HEIGHT - BOTTOM
    parts = [f'<line class="axis" x1="0" x2="100%" y1="{base}" y2="{base}"/>']
    for mark in marks:
        label, x, y = "0" if mark == 0 else _signed(mark, step, 1), across(mark), up(mark)
        parts.append(f'<line class="grid" x1="{x:.2f}%" x2="{x:.2f}%" y1="{TOP}" y2="{base}"/>')
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
        anchor = "end" if x > 94 else "middle" if x > 4 else "start"
        parts.append(_text(x, base + 15, label, "tick", anchor))
        parts.append(f'<text class="tick" x="-8" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    return parts


def _point(row: Promise, across: Scale, up: Scale, unit: str) -> str:
    assert row.realised is not None
    x, kind = across(row.promised), {1: "more", -1: "less", 0: "kept"}[row.sign]
    bar = ""
    if row.low is not None and row.high is not None:
        bar = f'<line class="interval" x1="{x:.2f}%" x2="{x:.2f}%" y1="{up(row.low):.1f}" y2="{up(row.high):.1f}"/>'
    return (
        f'<g class="promise {kind}"><title>{escape(_words(row, unit))}</title>{bar}'
        f'<circle cx="{x:.2f}%" cy="{up(row.realised):.1f}" r="5"/></g>'
    )


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.2f}%" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _signed(value: float, size: float, digits: int = 3) -> str:
    places = min(8, max(0, digits - 1 - math.floor(math.log10(size)))) if size else digits
    return f"{value:+.{places}f}".replace("-", MINUS)
