"""A thread's path in one glance: how the gain of its head grew from verdict to verdict."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from research.drawing.scale import Scale

WIDTH, HEIGHT, EDGE = 120, 28, 4
NEWEST = 60  # verdicts that still can be told apart at this width


def sparkline(heights: Sequence[float], kinds: Sequence[str], label: str) -> str:
    """`heights[0]` is the head's gain before the first verdict, `heights[i + 1]` after the verdict `kinds[i]`.

    A gain is a dot on the line, a failure a tick at the bottom; what did not gain is the flat stretch between.
    Only the newest verdicts are drawn.
    """
    kinds = list(kinds)[-NEWEST:]
    heights = list(heights)[-len(kinds) - 1 :]
    bottom = HEIGHT - EDGE
    head = f'<svg class="spark" role="img" aria-label="{escape(label)}" width="{WIDTH}" height="{HEIGHT}" '
    head += f'viewBox="0 0 {WIDTH} {HEIGHT}">'
    if not kinds:
        return f'{head}<path class="flat" d="M{EDGE} {bottom}H{WIDTH - EDGE}"/></svg>'
    across = Scale(0, len(kinds), EDGE, WIDTH - EDGE)
    low, high = min(heights), max(heights)
    up = Scale(low, high, bottom, EDGE) if high > low else Scale(low - 1, low + 1, bottom, EDGE)
    line, gains, failures = f"M{EDGE} {up(heights[0]):.1f}", "", ""
    for number, (height, kind) in enumerate(zip(heights[1:], kinds, strict=True), start=1):
        x, y = across(number), up(height)
        line += f"H{x:.1f}V{y:.1f}"
        if kind == "improved":
            gains += f"M{x:.1f} {y:.1f}h0"
        elif kind == "invalid":
            failures += f"M{x:.1f} {HEIGHT - 3}v3"
    parts = [head, f'<path class="line" d="{line}"/>']
    parts += [f'<path class="gain" d="{gains}"/>'] if gains else []
    parts += [f'<path class="failed" d="{failures}"/>'] if failures else []
    return "".join([*parts, "</svg>"])
