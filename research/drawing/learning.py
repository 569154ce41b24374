"""Learning curves of two commits, seed by seed: at equal steps on the left, at equal time on the right.

Numbers in, SVG out. Time is a share of the budget, as if all steps of a trial took the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from research.drawing.scale import MINUS, Scale, ticks

UNITS, HEIGHT, TOP, BOTTOM = 1000, 280, 20, 36
BASE = HEIGHT - BOTTOM
PANELS = (("0%", "46%"), ("54%", "46%"))  # x and width
HIGHEST = 0.9  # of the curves' values: their first points would crush the rest
PAD = 0.05


@dataclass(frozen=True)
class Curve:
    """One metric of one trial: steps rising, values as logged. `arm` is baseline or candidate."""

    arm: str
    steps: Sequence[float]
    values: Sequence[float]


def learning(curves: Sequence[Curve], names: tuple[str, str], budget: float, metric: str) -> str:
    """`names` of baseline and candidate; `budget` in seconds. Empty where no curve has two points."""
    drawn = [curve for curve in curves if len(curve.steps) > 1]
    if not drawn:
        return ""
    values = sorted(value for curve in drawn for value in curve.values)
    low, high = values[0], values[int(HIGHEST * (len(values) - 1))]
    pad = (high - low) * PAD or 1.0
    y = Scale(low - pad, high + pad, BASE, TOP)
    last = max(curve.steps[-1] for curve in drawn)
    by_step = [(curve.arm, list(curve.steps), curve.values) for curve in drawn]
    by_time = [(curve.arm, [budget * step / curve.steps[-1] for step in curve.steps], curve.values) for curve in drawn]
    label = escape(summary(drawn, names, budget, metric))
    panels = (_panel(by_step, last, y, PANELS[0], "steps"), _panel(by_time, budget, y, PANELS[1], "seconds"))
    return (
        f'<svg class="learning" role="img" aria-label="{label}" width="100%" height="{HEIGHT}"><title>{label}</title>'
        f"{''.join(panels)}{_key(names)}</svg>"
    )


def summary(curves: Sequence[Curve], names: tuple[str, str], budget: float, metric: str) -> str:
    """The drawing in words."""
    said = []
    for arm, name in zip(("baseline", "candidate"), names, strict=True):
        mine = [curve for curve in curves if curve.arm == arm]
        if mine:
            steps = sorted(curve.steps[-1] for curve in mine)[len(mine) // 2]
            said.append(f"{name}: {len(mine)} trials, {steps:g} steps in {budget:g} s")
    return f"{metric} at equal steps and at equal time; " + "; ".join(said)


def _panel(
    curves: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    end: float,
    y: Scale,
    place: tuple[str, str],
    axis: str,
) -> str:
    x = Scale(0, end, 0, UNITS)
    paths = "".join(
        f'<path class="{arm}" d="M{"L".join(map(_point, map(x, ats), map(y, values)))}"/>'
        for arm, ats, values in sorted(curves, key=lambda curve: curve[0])
    )
    marks = [f'<line class="axis" x1="0" x2="100%" y1="{BASE}" y2="{BASE}"/>']
    for mark in ticks(y.low, y.high, 4):
        marks.append(f'<line class="grid" x1="0" x2="100%" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>')
        label = f"{mark:.4g}".replace("-", MINUS)
        marks.append(f'<text class="tick" x="-8" y="{y(mark) + 4:.1f}" text-anchor="end">{label}</text>')
    for mark in ticks(0, end, 4):
        at = x(mark) * 100 / UNITS
        marks.append(f'<text class="tick" x="{at:.2f}%" y="{BASE + 15}" text-anchor="middle">{mark:g}</text>')
    marks.append(f'<text class="tick" x="100%" y="{BASE + 30}" text-anchor="end">{axis}</text>')
    return (
        f'<svg class="panel" x="{place[0]}" width="{place[1]}" height="{HEIGHT}">{"".join(marks)}'
        f'<svg width="100%" height="{HEIGHT}" viewBox="0 0 {UNITS} {HEIGHT}" preserveAspectRatio="none">{paths}</svg>'
        "</svg>"
    )


def _point(across: float, down: float) -> str:
    return f"{across:.1f} {down:.1f}"


def _key(names: tuple[str, str]) -> str:
    return "".join(
        f'<text class="name {arm}" x="{46 - 14 * number}%" y="12" text-anchor="end">{escape(name)}</text>'
        for number, (arm, name) in enumerate(zip(("candidate", "baseline"), names[::-1], strict=True))
    )
