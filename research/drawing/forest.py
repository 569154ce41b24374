"""Means with their intervals, one below the other on one scale: parts of a gain, an interaction, an ablation.

Numbers in, SVG out. The words stand above their bar, so that a phone has as much room for the numbers as a desk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from research.drawing.scale import MINUS, Scale, ticks

LEFT, RIGHT = 1.0, 99.0  # per cent of the width
ROW, HEAD, AXIS = 36, 4, 26
PAD = 0.05


@dataclass(frozen=True)
class Bar:
    """`kind` is a class: sum, part, expected or none. Without a `mean` it is not measured, and `note` says why."""

    label: str
    mean: float | None
    low: float | None = None
    high: float | None = None
    kind: str = ""
    note: str = ""
    href: str = ""


def forest(bars: Sequence[Bar], unit: str, what: str, percent: bool = False) -> str:
    """`what` names the drawing for who does not see it; values are shares where `percent`."""
    if not bars:
        return ""
    values = [0.0, *(value for bar in bars for value in (bar.mean, bar.low, bar.high) if value is not None)]
    low, high = min(values), max(values)
    pad = (high - low) * PAD or 1.0
    at = Scale(low - pad if low < 0 else low, high + pad, LEFT, RIGHT)
    size = max((abs(bar.mean) for bar in bars if bar.mean is not None), default=1.0)
    bottom = HEAD + ROW * len(bars)
    zero = at(0.0)
    parts = [f'<line class="zero" x1="{zero:.2f}%" x2="{zero:.2f}%" y1="{HEAD}" y2="{bottom}"/>']
    for number, bar in enumerate(bars):
        parts += _bar(bar, at, HEAD + ROW * number, size, percent)
    parts += _axis(at, bottom, percent, unit)
    label = escape(summary(bars, unit, what, percent))
    linked = any(bar.href for bar in bars)
    return (
        f'<svg class="forest" role="{"group" if linked else "img"}" aria-label="{label}" width="100%" '
        f'height="{bottom + AXIS}"><title>{label}</title>{"".join(parts)}</svg>'
    )


def summary(bars: Sequence[Bar], unit: str, what: str, percent: bool = False) -> str:
    """The drawing in words."""
    size = max((abs(bar.mean) for bar in bars if bar.mean is not None), default=1.0)
    said = [f"{bar.label} {_words(bar, size, percent)}" for bar in bars]
    return f"{what}: {'; '.join(said)}{'' if percent else f' {unit}'}"


def _bar(bar: Bar, at: Scale, y: float, size: float, percent: bool) -> list[str]:
    words = _text(LEFT, y + 13, bar.label, "label")
    if bar.href:
        words = f'<a href="{escape(bar.href)}">{words}</a>'
    parts = [words, _text(100, y + 13, _words(bar, size, percent), "number", "end")]
    if bar.mean is None:
        return parts
    middle, kind = y + 24, escape(bar.kind)
    start, end = sorted((at(0.0), at(bar.mean)))
    parts.append(
        f'<rect class="size {kind}" x="{start:.2f}%" y="{middle - 5}" width="{end - start:.2f}%" height="10"/>'
    )
    if bar.low is not None and bar.high is not None:
        parts.append(
            f'<line class="interval {kind}" x1="{at(bar.low):.2f}%" x2="{at(bar.high):.2f}%" '
            f'y1="{middle}" y2="{middle}"/>'
        )
    parts.append(f'<circle class="mean {kind}" cx="{at(bar.mean):.2f}%" cy="{middle}" r="4"/>')
    return parts


def _words(bar: Bar, size: float, percent: bool) -> str:
    if bar.mean is None:
        return bar.note or "not measured"
    if bar.low is None or bar.high is None:
        return _signed(bar.mean, size, percent) + (f" {bar.note}" if bar.note else "")
    even = math.isclose(bar.mean - bar.low, bar.high - bar.mean, rel_tol=1e-6, abs_tol=1e-12)
    if even:
        around = _signed(bar.high - bar.mean, size, percent).lstrip("+")
        return f"{_signed(bar.mean, size, percent)} ± {around}"
    low, high = _signed(bar.low, size, percent), _signed(bar.high, size, percent)
    return f"{_signed(bar.mean, size, percent)} [{low}, {high}]"


def _axis(at: Scale, y: float, percent: bool, unit: str) -> list[str]:
    marks = ticks(at.low, at.high, 4)
    step = abs(marks[1] - marks[0]) if len(marks) > 1 else 0.1
    parts = [f'<line class="axis" x1="{LEFT}%" x2="{RIGHT}%" y1="{y}" y2="{y}"/>']
    for mark in marks:
        x = at(mark)
        anchor = "end" if x > 94 else "middle" if x > 5 else "start"
        label = "0" if mark == 0 else _signed(mark, step, percent, 1)
        parts.append(f'<line class="grid" x1="{x:.2f}%" x2="{x:.2f}%" y1="{HEAD}" y2="{y}"/>')
        parts.append(_text(x, y + 15, label, "tick", anchor))
    return parts


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.2f}%" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _signed(value: float, size: float, percent: bool, digits: int = 3) -> str:
    """With as many places as a number of that size needs for so many digits."""
    factor = 100 if percent else 1
    size = abs(size) * factor
    places = min(8, max(0, digits - 1 - math.floor(math.log10(size)))) if size else digits
    return f"{factor * value:+.{places}f}{' %' if percent else ''}".replace("-", MINUS)
