"""The numbers of the kernel board: what a cell, a problem and the whole are worth, and how they are written. Pure.

Every cell has anchors of its own launch: its baseline is the time of the definition's reference, run as it is in turns
with the solution, its bound that of the device's roofline. So 0.5 is as fast as the reference by definition. A cell
without a usable bound has no score; a problem of which nothing was measured counts as its reference.

Problems with published figures have a second score, by anchors that were scaled to the device: the one that boards
compare. There what was not measured, not even its reference, counts 0. The two are never mixed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from benchmarks.kernels.anchors import Anchor
from benchmarks.kernels.cells import CellTimes
from benchmarks.kernels.score import geometric_mean, mean, score

REFERENCE_SCORE = 0.5
MINUS = "\N{MINUS SIGN}"
SAME = 0.015  # of a score: within it of the reference nothing is called faster or slower


class Show(StrEnum):
    """What the cells say."""

    SCALED = "scaled"
    SCORE = "score"
    SPEEDUP = "speedup"
    LATENCY = "latency"


@dataclass(frozen=True)
class Place:
    """One workload of a problem. `times`: of the newest measurement of the code that is shown; None without one.

    `reference`: the newest times of the workload in any launch, whose reference stands in for what was never measured.
    """

    uuid: str
    times: CellTimes | None = None
    reference: CellTimes | None = None

    @property
    def reference_ms(self) -> float | None:
        return self.reference.reference_ms if self.reference else None

    @cached_property
    def scaled(self) -> float | None:
        """The score by scaled anchors; None without such."""
        row = self.times or self.reference
        anchor, time = (row.scaled if row else None), self.latency_ms
        return score(time, anchor) if anchor and time and time > 0 else None

    @cached_property
    def anchor(self) -> Anchor | None:
        """None without a measurement, without a bound, or with one that the reference itself beat."""
        if self.times is None or self.times.bound_ms is None:
            return None
        bound, baseline = self.times.bound_ms, self.times.reference_ms
        return Anchor(bound, baseline) if 0 < bound < baseline else None

    @cached_property
    def score(self) -> float | None:
        if self.times is None:
            return REFERENCE_SCORE
        anchor = self.anchor
        return score(self.times.latency_ms, anchor) if anchor and self.times.latency_ms > 0 else None

    @cached_property
    def speedup(self) -> float:
        """Times as fast as the reference of the same launch."""
        return self.times.reference_ms / self.times.latency_ms if self.times and self.times.latency_ms > 0 else 1.0

    @property
    def latency_ms(self) -> float | None:
        return self.times.latency_ms if self.times else self.reference_ms

    @property
    def below_bound(self) -> bool:
        """Faster than the speed of light: a wrong bound or a trick."""
        bound = self.times.bound_ms if self.times else None
        return self.times is not None and bound is not None and self.times.latency_ms < bound

    @cached_property
    def level(self) -> int:
        """-3 (much slower than the reference) to 5 (at the bound), for the colour. By the speed-up without a bound."""
        value = self.score
        if value is None:
            value = self.speedup / (1 + self.speedup)  # the score of a bound that is far away
        if value < REFERENCE_SCORE - SAME:
            return max(-3, -1 - int((REFERENCE_SCORE - value) * 8))
        return min(5, max(0, math.ceil((value - REFERENCE_SCORE - SAME) * 10)))


@dataclass(frozen=True, eq=False)
class Standing:
    """One problem with some code: main's, the start's or a thread's. What is drawn of it is kept by its identity."""

    places: tuple[Place, ...]

    @cached_property
    def is_measured(self) -> bool:
        return any(place.times for place in self.places)

    @cached_property
    def score(self) -> float | None:
        """Mean over the workloads; None where something measured has no score. 0.5 where nothing was measured."""
        scores = [place.score for place in self.places]
        known = [value for value in scores if value is not None]
        return None if len(known) < len(scores) else mean(known) if known else REFERENCE_SCORE

    @cached_property
    def scaled(self) -> float | None:
        """Mean over the workloads, 0 for those without; None where no workload has scaled anchors."""
        scores = [place.scaled for place in self.places]
        return mean([value or 0.0 for value in scores]) if any(value is not None for value in scores) else None

    @cached_property
    def speedup(self) -> float:
        """Geometric mean over the workloads."""
        return geometric_mean([place.speedup for place in self.places]) or 1.0

    @cached_property
    def latency_ms(self) -> float | None:
        """Geometric mean over the workloads of which a time is known."""
        return geometric_mean([time for place in self.places if (time := place.latency_ms)])

    @cached_property
    def below_bound(self) -> int:
        return sum(place.below_bound for place in self.places)

    def value(self, show: Show) -> float | None:
        return {
            Show.SCALED: self.scaled, Show.SCORE: self.score, Show.SPEEDUP: self.speedup, Show.LATENCY: self.latency_ms,
        }[show]  # fmt: skip

    def shown(self, show: Show) -> str:
        """In words: the speed-up where the score is asked for and there is no bound."""
        if show is Show.SCORE and self.score is None:
            return speedup_text(self.speedup)
        return text(self.value(show), show)

    @cached_property
    def bounded(self) -> tuple[float, float, float] | None:
        """(bound, latency, reference), each the geometric mean in ms over the workloads with a bound; None without."""
        times = [place.times for place in self.places if place.times and place.times.bound_ms]
        bound = geometric_mean([row.bound_ms for row in times if row.bound_ms])
        latency = geometric_mean([row.latency_ms for row in times if row.latency_ms > 0])
        reference = geometric_mean([row.reference_ms for row in times if row.reference_ms > 0])
        return (bound, latency, reference) if bound and latency and reference else None


def standing(
    uuids: Sequence[str], cells: Mapping[str, CellTimes] | None, reference: Mapping[str, CellTimes]
) -> Standing:
    """Of a problem's workloads, in their order; those that were measured and are not among them come last."""
    more = [uuid for uuid in cells or () if uuid not in uuids]
    return Standing(
        tuple(Place(uuid, (cells or {}).get(uuid), reference.get(uuid)) for uuid in (*uuids, *sorted(more)))
    )


def gain(now: Standing, then: Standing, show: Show) -> float | None:
    """What `now` is ahead of `then`: a difference of scores, else the share of the speed-up or of the time saved."""
    if show is Show.SCORE and now.score is not None and then.score is not None:
        return now.score - then.score
    if show is Show.SCALED:
        return (now.scaled or 0.0) - (then.scaled or 0.0)
    if show is Show.LATENCY:
        old, new = then.latency_ms, now.latency_ms
        return 1 - new / old if old and new else None
    return now.speedup / then.speedup - 1


def gain_text(now: Standing, then: Standing, show: Show) -> str:
    """+.04 of a score, ×1.30 of a speed-up, −12 % of a time; a dash where nothing came of it."""
    value = gain(now, then, show)
    if value is None or abs(value) < 0.005:
        return "\N{EN DASH}"
    if show is Show.SCALED or show is Show.SCORE and now.score is not None and then.score is not None:
        return f"{value:+.2f}".replace("0.", ".", 1).replace("-", MINUS)
    if show is Show.LATENCY:
        return f"{-100 * value:+.0f} %".replace("-", MINUS)
    return f"{100 * value:+.0f} %".replace("-", MINUS)


@dataclass(frozen=True)
class Headline:
    """Over all problems given: one of which nothing was measured, or that has no bound, counts as its reference."""

    standings: Sequence[Standing]

    @property
    def is_scored(self) -> bool:
        """Whether anything measured has a score."""
        return any(row.is_measured and row.score is not None for row in self.standings)

    @property
    def score(self) -> float:
        scores = [REFERENCE_SCORE if row.score is None else row.score for row in self.standings]
        return mean(scores) if scores else REFERENCE_SCORE

    @property
    def is_scaled(self) -> bool:
        """Whether anything has scaled anchors."""
        return any(row.scaled is not None for row in self.standings)

    @property
    def scaled(self) -> float:
        """By scaled anchors, over all problems: what was not measured or has none counts 0."""
        return mean([row.scaled or 0.0 for row in self.standings]) if self.standings else 0.0

    @property
    def speedup(self) -> float:
        """Geometric mean; what was not measured counts 1."""
        return geometric_mean([row.speedup for row in self.standings]) or 1.0

    @property
    def measured(self) -> int:
        return sum(row.is_measured for row in self.standings)

    @property
    def unbounded(self) -> int:
        """Problems that were measured and have no score."""
        return sum(row.is_measured and row.score is None for row in self.standings)

    @property
    def faster(self) -> int:
        """Problems clearly faster than their reference: by 3 %."""
        return sum(row.speedup > 1.03 for row in self.standings)

    @property
    def below_bound(self) -> int:
        """Workloads that are faster than their bound."""
        return sum(row.below_bound for row in self.standings)


def text(value: float | None, show: Show) -> str:
    if value is None:
        return "\N{EN DASH}"
    write = {Show.SPEEDUP: speedup_text, Show.LATENCY: latency_text}.get(show, score_text)
    return write(value)


def score_text(value: float) -> str:
    """.71; 1.0 at the bound."""
    return f"{value:.2f}"[1:] if value < 0.995 else f"{value:.1f}"


def speedup_text(value: float) -> str:
    """1.50×, 12.3×, 140×."""
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}×"


def latency_text(value: float) -> str:
    """A time in ms as microseconds with three digits; from 10 ms on in milliseconds."""
    micro = 1000 * value
    if micro >= 9_999.5:
        return f"{value:.{1 if value < 99.95 else 0}f} ms"
    return f"{micro:.{max(0, 2 - math.floor(math.log10(micro)))}f}" if micro > 0 else "0"


def time_text(value: float) -> str:
    """The same with its unit."""
    found = latency_text(value)
    return found if found.endswith("ms") else f"{found} µs"


def cell_text(place: Place, show: Show) -> str:
    """What a cell prints; the speed-up where the score is asked for and there is no bound."""
    if show is Show.SCORE:
        value = place.score
        return score_text(value) if value is not None else speedup_text(place.speedup)
    if show is Show.SCALED:
        return text(place.scaled, show)
    return speedup_text(place.speedup) if show is Show.SPEEDUP else text(place.latency_ms, show)


def mark(place: Place) -> tuple[str, str]:
    """A glyph beside the number and its meaning; both empty for a plain one."""
    if place.times is None:
        return "○", "not measured: its reference"
    if place.below_bound:
        return "▲", "faster than its bound: look at it"
    if place.level < 0:
        return "▼", "slower than the reference"
    if place.anchor is None:
        return "∅", "no usable bound: speed-up alone"
    return "", ""


def told(place: Place, name: str) -> str:
    """A cell in words, for whoever points at it."""
    if place.times is None:
        known = f", {time_text(place.reference_ms)}" if place.reference_ms else ""
        return f"{name}: not measured, its reference{known}"
    row = place.times
    parts = [time_text(row.latency_ms), f"reference {time_text(row.reference_ms)}", speedup_text(place.speedup)]
    if row.bound_ms is not None:
        parts.append(f"bound {time_text(row.bound_ms)}")
    if (value := place.score) is not None:
        parts.append(f"score {score_text(value)}")
    if (value := place.scaled) is not None:
        parts.append(f"by scaled anchors {score_text(value)}")
    glyph, why = mark(place)
    return f"{name}: {', '.join(parts)}{f'; {why}' if glyph else ''}"
