"""Lanes of a machine over the last minutes: one bar a trial, one lane a slot. Places are percentages, so that text and
strokes keep their size at any width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

LANE, GAP, AXIS = 22, 6, 20  # pixels
JOINED = 0.0015  # of the width: a gap narrower than this is not drawn, and where there are many bars it joins them
MANY = 300


@dataclass(frozen=True)
class Bar:
    """One trial on a slot; seconds are counted back from now. `kind` and `arm` are classes, never colours."""

    start: float  # seconds ago; larger is earlier
    end: float
    kind: str  # thread-0 to thread-7, noise, other, failed
    arm: str  # baseline, candidate
    title: str = ""
    href: str = ""
    running: bool = False


@dataclass(frozen=True)
class Lane:
    name: str
    bars: Sequence[Bar]
    gaps: Sequence[tuple[float, float]] = ()  # seconds ago: idle although something waited


def gantt(lanes: Sequence[Lane], seconds: float, label: str) -> str:
    """The SVG: `seconds` back from now, lanes from top to bottom, minutes below."""
    height = len(lanes) * (LANE + GAP) + AXIS
    parts = [
        f'<svg class="gantt" width="100%" height="{height}" role="group" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>"
    ]
    for back in _minutes(seconds):
        x = _x(back, seconds)
        anchor = "end" if back == 0 else "middle"
        text = "now" if back == 0 else f"\N{MINUS SIGN}{back / 60:.0f} min"
        parts.append(f'<line class="rule" x1="{x}" x2="{x}" y1="0" y2="{height - AXIS}"/>')
        parts.append(f'<text x="{x}" y="{height - 5}" text-anchor="{anchor}">{text}</text>')
    for number, lane in enumerate(lanes):
        parts.extend(_lane(lane, number * (LANE + GAP) + GAP / 2, seconds))
    return "".join([*parts, "</svg>"])


def _lane(lane: Lane, y: float, seconds: float) -> list[str]:
    parts = [f'<rect class="track" x="0" y="{y}" width="100%" height="{LANE}" rx="3"/>']
    for start, end in lane.gaps:
        if start - end >= JOINED * seconds and (width := _width(start, end, seconds)):
            parts.append(f'<rect class="idle" x="{_x(start, seconds)}" y="{y}" width="{width}" height="{LANE}"/>')
    bars = lane.bars if len(lane.bars) < MANY else _joined(lane.bars, seconds)
    for bar in bars:
        width = _width(bar.start, bar.end, seconds)
        if not width:
            continue
        classes = f"trial {bar.kind} {bar.arm}{' running' if bar.running else ''}"
        place = f'x="{_x(bar.start, seconds)}" y="{y}" width="{width}" height="{LANE}" rx="2"'
        box = f'<rect class="{escape(classes)}" {place}>'
        title = f"<title>{escape(bar.title)}</title></rect>"
        # Not in the tab order: the same trials are links in the lists beside the drawing.
        link = f'<a href="{escape(bar.href)}" tabindex="-1">{box}{title}</a>' if bar.href else box + title
        parts.append(link)
    return parts


def _joined(bars: Sequence[Bar], seconds: float) -> list[Bar]:
    found: list[Bar] = []
    for bar in sorted(bars, key=lambda one: -one.start):
        last = found[-1] if found else None
        near = last is not None and last.end - bar.start < JOINED * seconds
        if last is not None and near and (last.kind, last.href, last.running) == (bar.kind, bar.href, bar.running):
            found[-1] = replace(last, end=min(last.end, bar.end))
        else:
            found.append(bar)
    return found


def _minutes(seconds: float) -> list[float]:
    step = 60.0 if seconds <= 300 else 120.0
    return [step * number for number in range(int(seconds / step)) if step * number < seconds]


def _x(back: float, seconds: float) -> str:
    return f"{100 * (1 - min(seconds, max(0.0, back)) / seconds):.2f}%"


def _width(start: float, end: float, seconds: float) -> str:
    width = 100 * (min(start, seconds) - max(0.0, end)) / seconds
    return f"{max(width - 0.06, 0.1):.2f}%" if width > 0 else ""
