"""The rows of the heat map as HTML: 235 problems of 16 workloads are 4,000 cells, which a template takes too long for.

Whatever comes from files or rows is escaped. Colours are classes (static/css/kernels.css), each beside its number.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from functools import lru_cache
from html import escape

from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe

from research.templatetags.lab import ago
from research.views.kernels_board import Group, KernelBoard, Row, State
from research.views.kernels_problems import Known
from research.views.kernels_values import (
    REFERENCE_SCORE,
    Place,
    Show,
    Standing,
    cell_text,
    gain_text,
    mark,
    score_text,
    speedup_text,
    told,
)

NONE = '<span class="muted">–</span>'
WORDS = {"running": "◐", "review": "●", "failed": "×"}
MAPS = 64
_sent: OrderedDict[str, dict[str, int]] = OrderedDict()  # by key what each row of the last maps said, as a hash
TONES = {"running": "live", "review": "warn", "failed": "bad"}


class HeatMap:
    """The table's bodies, and a key that changes when what they say does (but for how long ago it was).

    `have` is the key of the map that is to be brought up to date: its rows that still say the same are left out but for
    their id, and the browser leaves them as they are (static/live.js).
    """

    def __init__(self, board: KernelBoard, have: str = "") -> None:
        self.board, self.digest = board, hashlib.sha1(usedforsecurity=False)
        self._before, self._rows = _sent.get(have, {}), dict[str, int]()
        self.bodies = mark_safe("".join(self._group(group) for group in board.groups))  # noqa: S308  it escapes
        head = board.headline
        self.digest.update(f"{board.show} {board.sort} {head.score} {head.scaled} {head.speedup}".encode())
        _sent[self.key] = self._rows
        _sent.move_to_end(self.key)
        while len(_sent) > MAPS:
            _sent.popitem(last=False)

    @property
    def key(self) -> str:
        return self.digest.hexdigest()[:16]

    def _group(self, group: Group) -> str:
        rows = "".join(self._row(row) for row in group.rows)
        if not group.name:
            return f"<tbody>{rows}</tbody>"
        head, count = group.headline, len(group.rows)
        scored = self.board.show is Show.SCORE and (head.is_scored or not head.measured)
        worth = score_text(head.score) if scored else speedup_text(head.speedup)
        if self.board.show is Show.SCALED:
            worth = score_text(head.scaled)
        said = f"{count} problem{'s' * (count != 1)}, mean {worth}"
        name = escape(group.name.replace("_", " "))
        return (
            f'<tbody><tr class="group"><th colspan="6" scope="rowgroup">{name} '
            f'<span class="muted">{said}</span></th></tr>{rows}</tbody>'
        )

    def _row(self, row: Row) -> str:
        show, name = self.board.show, escape(row.name)
        link = self.board.toward(row.name)
        fixed = (
            f'<th scope="row" class="problem"><a href="{escape(link)}" data-open data-problem="{name}">'
            f"{_broken(name)}</a>{_states(row.states)}</th>"
            f'<td class="strip">{strip(row.known, row.now, show)}</td>'
            f'<td class="num mean" data-label="mean">{row.now.shown(show)}</td>'
            f'<td class="num gain" data-label="gain since the start">{gain_text(row.now, row.start, show)}</td>'
            f'<td class="best{"" if row.best else " none"}" data-label="best thread">{_best(row, show)}</td>'
        )
        says = f"{fixed}{row.improved}"
        self.digest.update(says.encode())
        self._rows[row.name] = hash(says)
        if self._before.get(row.name) == self._rows[row.name]:
            return f'<tr id="row-{name}" data-same></tr>'
        chosen = ' aria-current="true"' if row.name == self.board.chosen else ""
        improved = f'<span class="sr">improved </span>{ago(row.improved)}' if row.improved else NONE
        kind = " class=chosen" if chosen else ""
        return (
            f'<tr id="row-{name}" data-row{kind}{chosen}>{fixed}'
            f'<td class="when{"" if row.improved else " none"}" data-label="improved">{improved}</td></tr>'
        )


@lru_cache(maxsize=2048)  # of 235 problems a trial changes one
def strip(known: Known, now: Standing, show: Show) -> str:
    """One cell a workload, in the problem's order."""
    cells = "".join(cell(place, known, show) for place in now.places)
    if not cells:
        return f'<span class="muted small">not measured; counts as its reference, {score_text(REFERENCE_SCORE)}</span>'
    return f'<ul class="cells" aria-label="{escape(known.name)}, by workload">{cells}</ul>'


def cell(place: Place, known: Known, show: Show) -> str:
    glyph, _ = mark(place)
    sign = f"<i>{glyph}</i>" if glyph else ""
    level = "ref" if place.times is None else f"h{place.level}".replace("-", "n")
    return (
        f'<li class="{level}" title="{escape(told(place, known.axes(place.uuid)))}">{sign}{cell_text(place, show)}</li>'
    )


def _best(row: Row, show: Show) -> str:
    if row.best is None:
        return NONE
    confirmed, mine = row.best
    address = reverse("thread", args=[confirmed.thread_id])
    return f'<a href="{address}">t-{confirmed.thread}</a> <span class="num">{mine.shown(show)}</span>'


def _states(states: tuple[State, ...]) -> str:
    return "".join(
        f'<a class="state {TONES[state.kind]}" href="{escape(state.href)}">'
        f'<span aria-hidden="true">{WORDS[state.kind]}</span> {escape(state.words)}</a>'
        for state in states
    )


def _broken(name: str) -> str:
    """May break at its underscores."""
    return name.replace("_", "_<wbr>")


def legend() -> SafeString:
    """The glyphs in words, once."""
    glyphs = {
        "○": "not measured: its reference stands in", "▼": "slower than the reference",
        "▲": "faster than its bound: look at it", "∅": "no usable bound",
    }  # fmt: skip
    return mark_safe("".join(f"<span><b>{glyph}</b> {words}</span>" for glyph, words in glyphs.items()))  # noqa: S308
