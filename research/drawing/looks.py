"""The e-value over the looks of an experiment, on a logarithmic axis, against the bar that it has to reach.

Numbers in, SVG out. As wide as its place: shapes are stretched by a nested `svg`, words and dots stand at percentages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from research.drawing.scale import Scale, whole_ticks

WIDTH = 2000  # units across
TOP, BOTTOM, HEIGHT = 16, 34, 240
SMALLEST, LARGEST = 1e-4, 1e12  # beyond them nobody reads a difference
WORDS = {
    "improved": "reaches its bar", "worse": "reaches the bar against it", "no_difference": "stops: no difference",
    "inconclusive": "stops: it cannot tell", "invalid": "does not count",
}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """One look: so many pairs, the e-value for the candidate and against it; `ends` names the verdict reached there."""

    pairs: int
    e_value: float
    e_against: float
    ends: str = ""


def path(
    readings: Sequence[Reading],
    planned: Sequence[int],
    bar: float | None,
    worse_bar: float,
    futile: float,
    futile_from: int,
) -> str:
    """`planned` are the looks still ahead; `bar` is None until the campaign has set it."""
    last = max([*(row.pairs for row in readings), *planned, 2])
    across = Scale(0, last, 0, 100)
    low, high = _range(readings, bar, worse_bar, futile)
    up = Scale(math.log10(low), math.log10(high), HEIGHT - BOTTOM, TOP)
    parts = [*_decades(low, high, up), *_marks(last, readings, planned, across)]
    parts += _line_of("futile", futile, up, f"below {_number(futile)}, from {futile_from} pairs on: it stops early", 14)
    same = bar is not None and abs(math.log10(worse_bar / bar)) < 0.02
    if bar is not None:
        parts += _line_of("bar", bar, up, f"bar {_number(bar)}{', and the same against it: worse' if same else ''}", -5)
    if not same:
        parts += _line_of("worse-bar", worse_bar, up, f"{_number(worse_bar)} against it: worse", 14)
    for kind in ("against", "for"):
        parts += _curve(kind, readings, across, up)
    return (
        f'<svg class="looks" role="img" aria-label="{escape(summary(readings, bar))}" width="100%" height="{HEIGHT}">'
        f"<title>{escape(summary(readings, bar))}</title>{''.join(parts)}</svg>"
    )


def summary(readings: Sequence[Reading], bar: float | None) -> str:
    """The drawing in words."""
    asked = f"bar {_number(bar)}" if bar else "the bar is set at the first look"
    if not readings:
        return f"e-value over the looks: none yet, {asked}"
    said = [f"{row.pairs} pairs: {_number(row.e_value)}" for row in readings]
    ends = f"; {WORDS.get(readings[-1].ends, readings[-1].ends)}" if readings[-1].ends else ""
    return f"e-value over the looks: {', '.join(said)}; {asked}{ends}"


def _range(readings: Sequence[Reading], bar: float | None, worse_bar: float, futile: float) -> tuple[float, float]:
    values = [value for row in readings for value in (row.e_value, row.e_against)]
    low, high = min([futile, *values]), max([worse_bar, bar or 1.0, *values])
    return max(SMALLEST, low / 2), min(LARGEST, high * 2.5)


def _decades(low: float, high: float, up: Scale) -> list[str]:
    """A faint line and a number at powers of ten, at most six of them; the line of 1 is stronger: no evidence."""
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    step = max(1, math.ceil((last - first) / 5))
    parts = []
    for power in sorted({*range(0, last + 1, step), *range(0, first - 1, -step)}):
        y = up(power)
        kind = "one" if power == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
        tick = _number(10.0**power) if power >= -2 else f"1e{power}"  # the margin holds four figures
        parts.append(f'<text class="tick" x="-8" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    return parts


def _marks(last: int, readings: Sequence[Reading], planned: Sequence[int], across: Scale) -> list[str]:
    base = HEIGHT - BOTTOM
    parts = [f'<line class="axis" x1="0" x2="100%" y1="{base}" y2="{base}"/>']
    for count in [*(row.pairs for row in readings), *planned]:
        x = across(count)
        parts.append(f'<line class="look" x1="{x:.2f}%" x2="{x:.2f}%" y1="{base}" y2="{base + 4}"/>')
    for mark in whole_ticks(0, last, 6):
        x = across(mark)
        anchor = "end" if x > 97 else "middle" if x > 2 else "start"
        parts.append(_text(x, base + 16, f"{mark:g}", "tick", anchor))
    parts.append(_text(100, base + 30, "confirm pairs", "axis", "end"))
    return parts


def _line_of(kind: str, value: float, up: Scale, words: str, below: int) -> list[str]:
    y = up(math.log10(min(max(value, SMALLEST), LARGEST)))
    line = f'<line class="{kind}" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>'
    return [line, _text(1, y + below, words, "number", "start")]


def _curve(kind: str, readings: Sequence[Reading], across: Scale, up: Scale) -> list[str]:
    """From 1 at no pair on: the line, stretched, and its dots, which are not."""
    values = [(row.pairs, row.e_value if kind == "for" else row.e_against, row.ends) for row in readings]
    if not values:
        return []
    places = [(across(pairs), up(math.log10(min(max(value, SMALLEST), LARGEST)))) for pairs, value, _ in values]
    line = f"M0 {up(0.0):.1f}" + "".join(f"L{x * WIDTH / 100:.1f} {y:.1f}" for x, y in places)
    parts = [
        f'<svg width="100%" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">'
        f'<path class="{kind}" d="{line}"/></svg>'
    ]
    for (x, y), (pairs, value, ends) in zip(places, values, strict=True):
        said = f"{pairs} pairs: e = {_number(value)} {'for the candidate' if kind == 'for' else 'against it'}"
        said += f", {WORDS.get(ends, ends)}" if ends and kind == "for" else ""
        mark = f"{kind} {ends}" if kind == "for" else kind
        parts.append(
            f'<circle class="{escape(mark.strip())}" cx="{x:.2f}%" cy="{y:.1f}" r="{4.5 if kind == "for" else 3:g}">'
            f"<title>{escape(said)}</title></circle>"
        )
    return parts


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.2f}%" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _number(value: float | None) -> str:
    """138, 0.37, 2.1e9: short enough for an axis."""
    if value is None:
        return ""
    if value >= 1e6 or 0 < value < 1e-3:
        return f"{value:.2g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.3g}"
