"""What gains are made of: of each, the part that is a better model at equal steps and the part that is more steps.

Numbers in, SVG out. Two bars a gain on one scale, with their intervals; the words stand above them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from research.drawing.scale import MINUS, Scale, ticks

LEFT, RIGHT = 1.0, 99.0  # per cent of the width
ROW, HEAD, AXIS, THICK = 42, 4, 26, 8
PAD = 0.05


@dataclass(frozen=True)
class Share:
    """A part of a gain, positive is better; `half` is half its interval."""

    mean: float
    half: float | None = None


@dataclass(frozen=True)
class Gain:
    label: str
    modelling: Share
    throughput: Share


def parts(gains: Sequence[Gain], unit: str) -> str:
    """Empty without gains."""
    if not gains:
        return ""
    ends = [0.0, *(end for gain in gains for share in (gain.modelling, gain.throughput) for end in _ends(share))]
    low, high = min(ends), max(ends)
    pad = (high - low) * PAD or 1.0
    at = Scale(low - pad if low < 0 else low, high + pad, LEFT, RIGHT)
    bottom = HEAD + ROW * len(gains)
    drawn = [_axis(at, bottom)]
    for number, gain in enumerate(gains):
        y = HEAD + ROW * number
        words = f"{_signed(gain.modelling.mean)} model, {_signed(gain.throughput.mean)} steps"
        drawn += [_text(LEFT, y + 13, gain.label, "label"), _text(100, y + 13, words, "number", "end")]
        drawn += [_bar(gain.modelling, at, y + 18, "modelling"), _bar(gain.throughput, at, y + 28, "throughput")]
    label = escape(summary(gains, unit))
    return (
        f'<svg class="parts" role="img" aria-label="{label}" width="100%" height="{bottom + AXIS}">'
        f"<title>{label}</title>{''.join(drawn)}</svg>"
    )


def summary(gains: Sequence[Gain], unit: str) -> str:
    """The drawing in words."""
    said = (
        f"{gain.label}: {_signed(gain.modelling.mean)} by the model at equal steps, "
        f"{_signed(gain.throughput.mean)} by more steps"
        for gain in gains
    )
    return f"parts of gains in {unit}; {'; '.join(said)}"


def _ends(share: Share) -> tuple[float, float]:
    half = share.half or 0.0
    return share.mean - half, share.mean + half


def _bar(share: Share, at: Scale, y: float, kind: str) -> str:
    start, end = sorted((at(0.0), at(share.mean)))
    low, high = (at(value) for value in _ends(share))
    box = f'<rect class="{kind}" x="{start:.2f}%" y="{y}" width="{end - start:.2f}%" height="{THICK}"/>'
    middle = y + THICK / 2
    line = f'<line class="interval" x1="{low:.2f}%" x2="{high:.2f}%" y1="{middle:g}" y2="{middle:g}"/>'
    return box + (line if share.half else "")


def _axis(at: Scale, bottom: int) -> str:
    drawn = [f'<line class="axis" x1="{LEFT}%" x2="{RIGHT}%" y1="{bottom}" y2="{bottom}"/>']
    for mark in ticks(at.low, at.high, 5):
        x, kind = at(mark), "zero" if mark == 0 else "grid"
        anchor = "end" if x > 94 else "middle" if x > 5 else "start"
        drawn.append(f'<line class="{kind}" x1="{x:.2f}%" x2="{x:.2f}%" y1="{HEAD}" y2="{bottom}"/>')
        drawn.append(_text(x, bottom + 15, _label(mark), "tick", anchor))
    return "".join(drawn)


def _label(mark: float) -> str:
    return "0" if mark == 0 else f"{mark:+.3g}".replace("-", MINUS)


def _signed(value: float) -> str:
    """Three digits, as many places as they take."""
    places = min(6, max(0, 2 - math.floor(math.log10(abs(value))))) if abs(value) > 1e-6 else 3
    return f"{value:+.{places}f}".replace("-", MINUS)


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.2f}%" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'
