"""What was said beforehand against what came: a square with the same range on both axes and its diagonal.

On the diagonal what was said came true; below it less came. The diagonal goes from corner to corner whatever the shape
of the place. The points are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from research.drawing.scale import Scale, ticks

WIDTH = 1000  # units across
TOP, BOTTOM, HEIGHT = 14, 34, 260
BASE = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Square:
    """`said`: the past participle of what was said beforehand; `across`: what the axis across is called."""

    low: float
    high: float
    said: str
    axis: str

    def x(self, value: float) -> float:
        """Percent of the width."""
        return Scale(self.low, self.high, 0, 100)(value)

    def y(self, value: float) -> float:
        return Scale(self.low, self.high, BASE, TOP)(value)

    def svg(
        self, kind: str, label: str, points: Sequence[str], labels: Callable[[Sequence[float]], Sequence[str]]
    ) -> str:
        """The drawing. `label` is it in words; `labels` makes the words of the marks of both axes."""
        parts = [
            *self._axes(labels),
            f'<svg width="100%" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">'
            f'<path class="diagonal" d="M0 {BASE}L{WIDTH} {TOP}"/></svg>',
            _text(2, TOP + 12, f"more than {self.said}", "side", "start"),
            _text(98, BASE - 8, f"less than {self.said}", "side", "end"),
            *points,
            _text(100, HEIGHT - 3, self.axis, "axis", "end"),
        ]
        words = escape(label)
        return (
            f'<svg class="{kind}" role="img" aria-label="{words}" width="100%" height="{HEIGHT}">'
            f"<title>{words}</title>{''.join(parts)}</svg>"
        )

    def _axes(self, labels: Callable[[Sequence[float]], Sequence[str]]) -> list[str]:
        marks = ticks(self.low, self.high, 4)
        parts = [f'<line class="axis" x1="0" x2="100%" y1="{BASE}" y2="{BASE}"/>']
        for mark, label in zip(marks, labels(marks), strict=True):
            x, y, kind = self.x(mark), self.y(mark), "zero" if mark == 0 else "grid"
            parts.append(f'<line class="{kind}" x1="{x:.2f}%" x2="{x:.2f}%" y1="{TOP}" y2="{BASE}"/>')
            parts.append(f'<line class="{kind}" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
            anchor = "end" if x > 94 else "middle" if x > 4 else "start"
            parts.append(_text(x, BASE + 15, label, "tick", anchor))
            parts.append(f'<text class="tick" x="-8" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        return parts


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.2f}%" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
