"""The idea graph as SVG: a window of columns of a lanes layout. Pixels in, classes out; the colours are in graph.css.

Every lane has a rail. A candidate hangs from the rail of its thread by a twig that begins at its parent; one that
others build on leads back up to the rail. So a dead end is seen to lead nowhere, whatever came after it, and no node
has to move when its verdict is known. Vertical stretches run between columns, where no node can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from research.drawing.lanes import Edge, Lanes, Place

COLUMN, LANE, RAIL, DROP = 26, 46, 14, 18  # pixels; the rail's distance from the top of its lane, the node's from it
CURVE = 7

# Shapes around 0, 0. The kind of a node is never told by colour alone.
SHAPES = {
    "start": '<rect x="-5.5" y="-5.5" width="11" height="11" rx="2"/>',
    "main": '<path d="M0-8 8 0 0 8-8 0Z"/>',
    "merged": '<path d="M0-7.5 7.5 0 0 7.5-7.5 0Z"/>',
    "improved": '<circle r="6.5"/>',
    "stale": '<circle r="5.5"/><circle class="core" r="2"/>',
    "rejected": '<circle r="6"/><path d="M-4.2 4.2 4.2-4.2"/>',
    "no_difference": '<path d="M-4.5-2.2h9M-4.5 2.2h9"/>',
    "inconclusive": '<circle r="3"/>',
    "worse": '<path d="M-5.5-4 5.5-4 0 5.5Z"/>',
    "failed": '<path d="M-5-5 5 5M-5 5 5-5"/>',
    "running": '<circle r="6"/><path class="half" d="M0-6a6 6 0 0 0 0 12Z"/>',
    "waiting": '<circle r="5.5"/>',
    "proposed": '<circle r="5.5"/>',
    "refused": '<path d="M-4.5 0h9"/>',
}


@dataclass(frozen=True)
class Mark:
    """How a node looks. `lens` colours it by its gain: lose-2, lose-1, same, win-1, win-2."""

    kind: str
    label: str
    href: str
    lens: str = ""


@dataclass(frozen=True)
class Window:
    """Columns first..last-1."""

    first: int
    last: int

    def has(self, place: Place) -> bool:
        return self.first <= place.column < self.last

    @property
    def width(self) -> int:
        return (self.last - self.first + 1) * COLUMN


def draw(lanes: Lanes, marks: Mapping[str, Mark], window: Window, rows: int, label: str, chosen: str = "") -> str:
    """The window's nodes and every edge that passes through it, `rows` lanes high."""
    height = rows * LANE
    parts = [
        f'<svg class="ideas" width="{window.width}" height="{height}" viewBox="0 0 {window.width} {height}" '
        f'role="group" aria-label="{escape(label)}">'
    ]
    parts.extend(_rule(row, window) for row in range(rows))
    newest = max((place.column for place in lanes.places.values() if place.lane == 0), default=-1)
    if newest >= 0:  # `main` stands there until something lands
        parts.append(f'<path class="edge main now" d="M{max(0, _x(newest, window))} {RAIL}H{window.width}"/>')
    parts.extend(_edges(lanes, marks, window))
    shown = [(key, place) for key, place in lanes.places.items() if window.has(place) and key in marks]
    reached = chosen if any(key == chosen for key, _ in shown) else shown[-1][0] if shown else ""
    parents: dict[str, list[str]] = {}
    for edge in lanes.edges:
        parents.setdefault(edge.child, []).append(edge.parent)
    for key, place in shown:
        parts.append(_node(key, place, marks[key], window, parents.get(key, ()), key == reached, key == chosen))
    return "".join([*parts, "</svg>"])


def shape(kind: str) -> str:
    """One shape alone, for the legend."""
    return (
        f'<svg class="ideas key" width="20" height="20" viewBox="-10 -10 20 20" aria-hidden="true">'
        f'<g class="node {escape(kind)}">{SHAPES[kind]}</g></svg>'
    )


def _rule(row: int, window: Window) -> str:
    y = row * LANE + RAIL
    return f'<line class="rule" x1="0" x2="{window.width}" y1="{y}" y2="{y}"/>'


def _x(column: int, window: Window) -> int:
    return (column - window.first) * COLUMN + COLUMN // 2 + COLUMN // 4


def _y(place: Place) -> int:
    return place.lane * LANE + RAIL + (DROP if place.lane else 0)


def _node(
    key: str, place: Place, mark: Mark, window: Window, parents: Sequence[str], reached: bool, chosen: bool
) -> str:
    kind = mark.kind if mark.kind in SHAPES else "waiting"
    classes = f"node {kind}{f' {mark.lens}' if mark.lens else ''}{' chosen' if chosen else ''}"
    label, current = escape(mark.label), ' aria-current="true"' if chosen else ""
    return (
        f'<a id="node-{escape(key)}" class="{escape(classes)}" href="{escape(mark.href)}" data-node="{escape(key)}" '
        f'data-parents="{escape(" ".join(parents))}" data-lane="{place.lane}" tabindex="{0 if reached else -1}" '
        f'aria-label="{label}"{current} '
        f'transform="translate({_x(place.column, window)} {_y(place)})"><title>{label}</title>'
        f'<circle class="hit" r="12"/>{SHAPES[kind]}</a>'
    )


def _edges(lanes: Lanes, marks: Mapping[str, Mark], window: Window) -> list[str]:
    """Coinciding stretches of rail are drawn once for each edge; the newest is on top."""
    found = []
    for edge in lanes.edges:
        parent, child = lanes.places[edge.parent], lanes.places[edge.child]
        if child.column < window.first or parent.column >= window.last or edge.child not in marks:
            continue
        path = _path(parent, child, window)
        if path:
            found.append(f'<path class="edge {_edge_kind(edge, child, marks)}" d="{path}"/>')
    return sorted(found, key=lambda text: "live" in text or "main" in text)


def _edge_kind(edge: Edge, child: Place, marks: Mapping[str, Mark]) -> str:
    if child.lane == 0:
        return "main" if edge.first else "landing"
    kind = marks[edge.child].kind
    group = {"merged": "kept", "improved": "kept", "running": "live", "waiting": "live", "proposed": "ghost"}
    return group.get(kind, "ended") + ("" if edge.first else " second")


def _path(parent: Place, child: Place, window: Window) -> str:
    """From the parent up to its rail, between columns to the child's rail, along it, down to the child."""
    half = COLUMN // 2
    x1, x2 = _x(parent.column, window), _x(child.column, window)
    y1, y2 = _y(parent), _y(child)
    rail1, rail2 = parent.lane * LANE + RAIL, child.lane * LANE + RAIL
    if parent.lane == child.lane == 0:
        return f"M{max(x1, 0)} {rail1}H{min(x2, window.width)}"
    steps: list[str] = []
    if child.lane == 0:  # a merge: along the rail of the thread, up right before the node on main
        turn = x2 - half
        if x1 >= 0:
            steps.append(f"M{x1} {y1}C{x1 + half} {y1} {x1 + CURVE} {rail1} {x1 + half} {rail1}")
        else:
            steps.append(f"M0 {rail1}")
        if turn > window.width:
            return "".join([*steps, f"H{window.width}"])
        steps.append(
            f"H{max(turn - CURVE, 0)}Q{turn} {rail1} {turn} {rail1 - CURVE}V{rail2 + CURVE}Q{turn} {rail2} {x2} {y2}"
        )
        return "".join(steps)
    turn = x1 + half
    down = CURVE if rail2 > rail1 else -CURVE
    if turn < 0:
        steps.append(f"M0 {rail2}")
    elif rail1 == rail2:
        steps.append(f"M{x1} {y1}C{x1 + half} {y1} {x1 + CURVE} {rail1} {turn} {rail1}")
    elif y1 == rail1:  # from main
        steps.append(
            f"M{x1} {y1}Q{turn} {rail1} {turn} {rail1 + down}V{rail2 - down}Q{turn} {rail2} {turn + CURVE} {rail2}"
        )
    else:
        steps.append(f"M{x1} {y1}Q{turn} {y1} {turn} {y1 + down}V{rail2 - down}Q{turn} {rail2} {turn + CURVE} {rail2}")
    if x2 - half > window.width:
        return "".join([*steps, f"H{window.width}"])
    near = max(x2 - half, turn + (CURVE if rail1 != rail2 else 0), 0)
    steps.append(f"H{near}C{x2 - CURVE} {rail2} {x2 - half} {y2} {x2} {y2}")
    return "".join(steps)
