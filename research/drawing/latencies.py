"""Times of one problem side by side: a line for the reference, for main and for each thread, a dot a trial, a tick at
the median.

Numbers in, SVG out. The axis is logarithmic, faster is to the left; the dashed line is the bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import median

from research.drawing.scale import Scale, log_ticks, short_time

LEFT, RIGHT = 23.0, 80.0  # per cent of the width
ROW, HEAD, AXIS = 24, 20, 22
PAD = 1.08


@dataclass(frozen=True)
class Line:
    """`times` of its trials in milliseconds, at least one; `kind`: reference, main or thread."""

    label: str
    kind: str
    times: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.times)

    @property
    def said(self) -> str:
        count = len(self.times)
        spread = f", {short_time(min(self.times))} to {short_time(max(self.times))}" if count > 1 else ""
        return f"{self.label}: median {short_time(self.median)} of {count} trial{'s' * (count != 1)}{spread}"


def latencies(lines: Sequence[Line], bound: float | None) -> str:
    """Empty without lines. `bound` in milliseconds."""
    if not lines:
        return ""
    values = [value for line in lines for value in line.times] + ([bound] if bound else [])
    low, high = min(values) / PAD, max(values) * PAD
    at = Scale(math.log(low), math.log(high), LEFT, RIGHT)
    base = HEAD + ROW * len(lines)
    parts = [_text(LEFT, 12, "← faster", "axis"), _text(100, 12, "median", "axis", "end")]
    marks = log_ticks(low, high, 4)
    for mark in marks if len(marks) > 1 else [min(values), max(values)]:
        x = at(math.log(mark))
        parts.append(f'<line class="grid" x1="{x:.2f}%" x2="{x:.2f}%" y1="{HEAD}" y2="{base}"/>')
        parts.append(_text(x, base + 15, short_time(mark), "tick", "middle"))
    if bound:
        x = at(math.log(bound))
        parts.append(f'<line class="bound" x1="{x:.2f}%" x2="{x:.2f}%" y1="{HEAD - 4}" y2="{base}"/>')
        parts.append(_text(x, 12, "bound", "axis", "middle"))
        parts[0] = ""
    parts += [_line(line, at, HEAD + ROW * (number + 0.5)) for number, line in enumerate(lines)]
    words = escape("; ".join(line.said for line in lines) + (f"; bound {short_time(bound)}" if bound else ""))
    return (
        f'<svg class="latencies" role="img" aria-label="{words}" width="100%" height="{base + AXIS}">'
        f"<title>{words}</title>{''.join(parts)}</svg>"
    )


def _line(line: Line, at: Scale, y: float) -> str:
    middle = at(math.log(line.median))
    dots = "".join(f'<circle cx="{at(math.log(value)):.2f}%" cy="{y:g}" r="3.4"/>' for value in line.times)
    return (
        f'<g class="{escape(line.kind)}"><title>{escape(line.said)}</title>{_text(0, y + 4, line.label, "label")}'
        f'<line class="rule" x1="{LEFT}%" x2="{RIGHT}%" y1="{y:g}" y2="{y:g}"/>{dots}'
        f'<line class="median" x1="{middle:.2f}%" x2="{middle:.2f}%" y1="{y - 8:g}" y2="{y + 8:g}"/>'
        f"{_text(100, y + 4, short_time(line.median), 'number', 'end')}</g>"
    )


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.2f}%" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'
