"""How much of the speed of light is reached: bound time across, achieved share of the bound upwards, both logarithmic.

Numbers in, SVG out. One mark a problem, joined to the mark of its reference below (or above) it by a line: both have
the same bound. The dashed line at 100 % is the roof.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from research.drawing.scale import Scale, log_ticks, short_time

TOP, BOTTOM, HEIGHT = 16, 40, 250
BASE = HEIGHT - BOTTOM
PAD = 1.25  # factor on both sides of what is drawn
LEAST = 0.05  # the share that the axis reaches down to at the least


@dataclass(frozen=True)
class Spot:
    """One problem: geometric means over its workloads, in milliseconds."""

    name: str
    bound: float
    latency: float
    reference: float
    href: str = ""
    chosen: bool = False

    @property
    def share(self) -> float:
        return self.bound / self.latency

    @property
    def reference_share(self) -> float:
        return self.bound / self.reference

    @property
    def said(self) -> str:
        bound = short_time(self.bound)
        return f"{self.name}: {self.share:.0%} of its bound of {bound}, reference {self.reference_share:.0%}"


def roofline(spots: Sequence[Spot]) -> str:
    """Empty without problems."""
    if not spots:
        return ""
    bounds = [spot.bound for spot in spots]
    shares = [share for spot in spots for share in (spot.share, spot.reference_share)]
    low, high = min(LEAST, *shares) / PAD, max(1.0, *shares) * PAD
    x = Scale(math.log(min(bounds) / PAD), math.log(max(bounds) * PAD), 0, 100)
    y = Scale(math.log(low), math.log(high), BASE, TOP)
    parts = [f'<line class="axis" x1="0" x2="100%" y1="{BASE}" y2="{BASE}"/>']
    for mark in log_ticks(low, high, 6):
        parts.append(_across(y(math.log(mark)), "roof" if mark == 1 else "grid"))
        parts.append(
            f'<text class="tick" x="-8" y="{y(math.log(mark)) + 4:.1f}" text-anchor="end">{_share(mark)}</text>'
        )
    for mark in log_ticks(min(bounds) / PAD, max(bounds) * PAD, 5):
        at = x(math.log(mark))
        anchor = "end" if at > 94 else "middle" if at > 4 else "start"
        parts.append(
            f'<text class="tick" x="{at:.2f}%" y="{BASE + 15}" text-anchor="{anchor}">{short_time(mark)}</text>'
        )
    parts.append(f'<text class="axis" x="100%" y="{HEIGHT - 4}" text-anchor="end">bound, from the roofline</text>')
    parts += [_spot(spot, x, y) for spot in sorted(spots, key=lambda spot: spot.chosen)]
    words = escape(summary(spots))
    return (
        f'<svg class="roofline" role="group" aria-label="{words}" width="100%" height="{HEIGHT}">'
        f"<title>{words}</title>{''.join(parts)}</svg>"
    )


def summary(spots: Sequence[Spot]) -> str:
    """The drawing in words."""
    best, least = max(spots, key=lambda spot: spot.share), min(spots, key=lambda spot: spot.share)
    return (
        f"share of the bound reached by {len(spots)} problem{'s' * (len(spots) != 1)}: "
        f"most {best.name} with {best.share:.0%}, least {least.name} with {least.share:.0%}"
    )


def _spot(spot: Spot, x: Scale, y: Scale) -> str:
    at, up, down = x(math.log(spot.bound)), y(math.log(spot.share)), y(math.log(spot.reference_share))
    kind = "spot chosen" if spot.chosen else "spot"
    said = escape(spot.said)
    marks = (
        f"<title>{said}</title>"
        f'<line x1="{at:.2f}%" x2="{at:.2f}%" y1="{down:.1f}" y2="{up:.1f}"/>'
        f'<circle class="reference" cx="{at:.2f}%" cy="{down:.1f}" r="2.6"/>'
        f'<circle class="main" cx="{at:.2f}%" cy="{up:.1f}" r="4"/>'
    )
    if not spot.href:
        return f'<g class="{kind}">{marks}</g>'
    link = f'href="{escape(spot.href)}" data-problem="{escape(spot.name)}"'
    return f'<a class="{kind}" {link} aria-label="{said}" tabindex="-1">{marks}</a>'


def _across(y: float, kind: str) -> str:
    return f'<line class="{kind}" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>'


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"
