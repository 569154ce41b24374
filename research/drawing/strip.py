"""The seeds strip: every pair of an experiment on one scale, and the gain that follows. Numbers in, SVG out.

Better is always to the right, whichever way the metric goes. Places along the width are shares of it, so the drawing
fits any width and its text keeps its size; colours are classes (static/css/drawing.css).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10
from statistics import fmean

from research.drawing.scale import MINUS, Scale, ticks

LEFT, RIGHT = 15.0, 83.0  # per cent of the width between which values lie
ROW, HEAD, AXIS, PANEL = 17, 22, 30, 66  # heights
DISCARDED = ("screen", "extend")  # stages whose pairs chose the candidate, and so count for nothing
CLOSE_ROW = 11  # of one pair where there are many
MANY = 16
PAD = 0.06  # of the range, on both sides


@dataclass(frozen=True)
class Pair:
    """One seed on both arms. `gain` is in units of the metric, positive is better."""

    stage: str  # screen, extend, confirm, replicate, noise, closing
    seed: int
    baseline: float
    candidate: float
    gain: float


@dataclass(frozen=True)
class Effect:
    """What the confirm pairs came to, in units of the metric; `low` and `high` bound the gain."""

    mean: float
    shrunk: float | None = None
    low: float | None = None
    high: float | None = None


def strip(pairs: Sequence[Pair], effect: Effect | None, sigma: float | None, metric: str, lower: bool) -> str:
    """All pairs, a row each with both scores joined; below them the gains with effect, interval and noise.

    `sigma` is the noise floor's sd of a pair, `lower` whether a lower score is better.
    """
    if not pairs:
        return ""
    row = CLOSE_ROW if len(pairs) > MANY else ROW
    scores = [score for pair in pairs for score in (pair.baseline, pair.candidate)]
    at = _scale(scores, flipped=lower)
    parts = [_text(LEFT, 13, metric, "axis"), _text(RIGHT, 13, "better →", "axis", "end"),
             _text(100, 13, "gain", "axis", "end")]  # fmt: skip
    y, stage, size = float(HEAD), "", fmean(abs(pair.gain) for pair in pairs)
    for pair in pairs:
        if pair.stage != stage:
            y += 5 if stage else 0
            parts.append(_text(0, y + row / 2 + 4, pair.stage, "stage"))
            stage = pair.stage
        parts.append(_pair(pair, at, y + row / 2, row, size))
        y += row
    parts += _axis(at, HEAD - 3, y + 3, ticks(min(scores), max(scores), 4))
    y += AXIS
    parts += _effect(pairs, effect, sigma, y)
    return _svg(y + PANEL, "strip", summary(pairs, effect, sigma, metric), parts)


def small(gains: Sequence[float], effect: Effect | None, sigma: float | None) -> str:
    """The gains alone, for a list: noise band, zero, interval, effect."""
    if not gains:
        return ""
    at = _gain_scale(gains, effect, sigma, 1.0, 99.0)
    parts = _background(at, sigma, 2, 26)
    parts += [f'<circle class="gain" cx="{at(gain):.2f}%" cy="21" r="2"/>' for gain in gains]
    parts += _bar(effect, at, 10, 6)
    text = f"{len(gains)} confirm pairs"
    return _svg(28, "strip small", f"{text}, {_effect_words(effect)}" if effect else text, parts)


def summary(pairs: Sequence[Pair], effect: Effect | None, sigma: float | None, metric: str) -> str:
    """The drawing in words."""
    counts = []
    for stage in dict.fromkeys(pair.stage for pair in pairs):
        mine = [pair for pair in pairs if pair.stage == stage]
        aside = ", not counted" if stage in DISCARDED else ""
        counts.append(f"{stage}: better in {sum(pair.gain > 0 for pair in mine)} of {len(mine)} pairs{aside}")
    words = [f"{metric} of baseline and candidate by seed", *counts]
    if effect:
        words.append(_effect_words(effect))
    if sigma:
        words.append(f"noise of a pair {_number(sigma, sigma)}")
    return "; ".join(words)


def _effect_words(effect: Effect) -> str:
    text = f"mean gain {_signed(effect.mean, effect.mean)}"
    if effect.low is not None and effect.high is not None:
        text += f", interval {_signed(effect.low, effect.mean)} to {_signed(effect.high, effect.mean)}"
    return text


def _pair(pair: Pair, at: Scale, y: float, row: int, size: float) -> str:
    """`size` is that of a usual gain: all numbers get as many places as it needs."""
    start, end = at(pair.baseline), at(pair.candidate)
    kind = "better" if pair.gain > 0 else "worse"
    told = (
        f"{pair.stage}, seed {pair.seed}: baseline {_number(pair.baseline, size)}, "
        f"candidate {_number(pair.candidate, size)}, gain {_signed(pair.gain, size)}"
    )
    number = _signed(pair.gain, size)
    if pair.stage in DISCARDED:
        told, number = f"{told}, not counted", f"({number})"
    gain = _text(100, y + 4, number, "number", "end") if row == ROW else ""
    return (
        f'<g class="pair {escape(pair.stage)}"><title>{escape(told)}</title>'
        f'<rect class="catch" x="0" y="{y - row / 2}" width="100%" height="{row}"/>'
        f'<line class="{kind}" x1="{start:.2f}%" x2="{end:.2f}%" y1="{y}" y2="{y}"/>'
        f'<circle class="baseline" cx="{start:.2f}%" cy="{y}" r="3.2"/>'
        f'<circle class="candidate" cx="{end:.2f}%" cy="{y}" r="4"/>{gain}</g>'
    )


def _effect(pairs: Sequence[Pair], effect: Effect | None, sigma: float | None, y: float) -> list[str]:
    """The second panel: what each pair gained, and the effect over them."""
    judged = [pair for pair in pairs if pair.stage not in DISCARDED] or list(pairs)
    gains = [pair.gain for pair in judged]
    at = _gain_scale(gains, effect, sigma, LEFT, RIGHT)
    parts = _background(at, sigma, y, y + 36)
    parts.append(_text(0, y + 14, "effect" if effect else "gains", "stage"))
    parts += [
        f'<circle class="gain {escape(pair.stage)}" cx="{at(pair.gain):.2f}%" cy="{y + 29}" r="2.5"/>'
        for pair in judged
    ]
    parts += _bar(effect, at, y + 10, 10)
    if effect:
        parts.append(_text(100, y + 14, _signed(effect.mean, effect.mean), "number strong", "end"))
    parts += _axis(at, y + 36, y + 39, ticks(at.low, at.high, 4), zero=True)
    return parts


def _background(at: Scale, sigma: float | None, top: float, bottom: float) -> list[str]:
    parts = []
    if sigma:
        start, end = at(-sigma), at(sigma)
        parts.append(
            f'<rect class="noise" x="{start:.2f}%" y="{top}" width="{end - start:.2f}%" height="{bottom - top}"/>'
        )
    zero = at(0.0)
    parts.append(f'<line class="zero" x1="{zero:.2f}%" x2="{zero:.2f}%" y1="{top}" y2="{bottom}"/>')
    return parts


def _bar(effect: Effect | None, at: Scale, y: float, thick: int) -> list[str]:
    """The interval, the mean, and the mean shrunk towards zero."""
    if effect is None:
        return []
    parts = []
    if effect.low is not None and effect.high is not None:
        start, end = at(effect.low), at(effect.high)
        parts.append(
            f'<rect class="interval" x="{start:.2f}%" y="{y - thick / 2}" width="{max(end - start, 0.3):.2f}%" '
            f'height="{thick}" rx="{thick / 2}"/>'
        )
    if effect.shrunk is not None:
        parts.append(f'<circle class="shrunk" cx="{at(effect.shrunk):.2f}%" cy="{y}" r="{thick * 0.38:.1f}"/>')
    parts.append(f'<circle class="effect" cx="{at(effect.mean):.2f}%" cy="{y}" r="{thick * 0.5:.1f}"/>')
    return parts


def _axis(at: Scale, top: float, y: float, marks: list[float], zero: bool = False) -> list[str]:
    """Marks with numbers below the line at `y`, and faint lines up to `top`."""
    parts = [f'<line class="axis" x1="{LEFT}%" x2="{RIGHT}%" y1="{y}" y2="{y}"/>']
    step = abs(marks[1] - marks[0]) if len(marks) > 1 else 0.1
    for mark in marks:
        x = at(mark)
        label = (_signed(mark, step, 1) if mark else "0") if zero else _number(mark, step, 1)
        parts.append(f'<line class="grid" x1="{x:.2f}%" x2="{x:.2f}%" y1="{top}" y2="{y}"/>')
        parts.append(_text(x, y + 14, label, "tick", "middle"))
    return parts


def _scale(values: Sequence[float], flipped: bool) -> Scale:
    low, high = min(values), max(values)
    pad = (high - low) * PAD or abs(high) * 0.01 or 1.0
    low, high = low - pad, high + pad
    return Scale(high, low, LEFT, RIGHT) if flipped else Scale(low, high, LEFT, RIGHT)


def _gain_scale(gains: Sequence[float], effect: Effect | None, sigma: float | None, start: float, end: float) -> Scale:
    values = [0.0, *gains, -(sigma or 0.0), sigma or 0.0]
    if effect:
        values += [value for value in (effect.mean, effect.low, effect.high) if value is not None]
    low, high = min(values), max(values)
    pad = (high - low) * PAD or 1.0
    return Scale(low - pad, high + pad, start, end)


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.2f}%" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(height: float, kind: str, label: str, parts: Sequence[str]) -> str:
    label = escape(label)
    return (
        f'<svg class="{kind}" role="img" aria-label="{label}" width="100%" height="{height:g}"><title>{label}</title>'
        f"{''.join(parts)}</svg>"
    )


def _places(size: float, digits: int) -> int:
    return min(8, max(0, digits - 1 - floor(log10(abs(size))))) if size else digits


def _number(value: float, size: float, digits: int = 3) -> str:
    """With as many places as a number of that size needs for so many digits."""
    return f"{value:.{_places(size, digits)}f}".replace("-", MINUS)


def _signed(value: float, size: float, digits: int = 3) -> str:
    return f"{value:+.{_places(size, digits)}f}".replace("-", MINUS)
