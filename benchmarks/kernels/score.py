"""The SOL score: where a latency lies between the baseline (0.5) and the speed of light (1), and its means.

The formula and the means are those of SOL-ExecBench (NVIDIA/SOL-ExecBench; arXiv 2603.19173). A problem is the
arithmetic mean over its workloads, a collection and the headline the arithmetic mean over all problems given; what is
missing, failed or without an anchor counts 0. One board is scored against one `Anchors`, so against one provenance.
Latencies are in milliseconds throughout. No torch, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.kernels.anchors import Anchor, Anchors, Provenance
from benchmarks.kernels.formats.workload import Problem

UNDECIDABLE = 1.05  # below this headroom noise of 0.4 % moves the score by more than 0.03
VACUOUS = 100.0  # above it the bound is so far away that the score is T_b / (T_b + T_k)


class ScoreError(ValueError):
    """A latency that is no positive time, or a board of nothing."""


class Headroom(StrEnum):
    """What a score between these anchors can tell, by T_b / T_SOL."""

    UNDECIDABLE = "undecidable"
    USUAL = "usual"
    VACUOUS = "vacuous"


def headroom(anchor: Anchor) -> Headroom:
    if anchor.headroom < UNDECIDABLE:
        return Headroom.UNDECIDABLE
    return Headroom.VACUOUS if anchor.headroom > VACUOUS else Headroom.USUAL


def official(latency_ms: float, bound_ms: float, baseline_ms: float) -> float:
    """S = 1 / (1 + (T_k - T_SOL) / (T_b - T_SOL)), as published: it exceeds 1 below the bound.

    Where the baseline is no slower than the bound it is 1 at the bound or below, else 0. Far below a bound that is
    close to its baseline the formula has a pole: infinite there, negative beyond.
    """
    if baseline_ms <= bound_ms:
        return 1.0 if latency_ms <= bound_ms else 0.0
    below = 1 + (latency_ms - bound_ms) / (baseline_ms - bound_ms)
    return 1 / below if below else math.inf


def score(latency_ms: float, anchor: Anchor) -> float:
    """The official score held at 1: a latency below the bound shows a wrong bound or a trick, not a better kernel."""
    if not (math.isfinite(latency_ms) and latency_ms > 0):
        raise ScoreError(f"a latency of {latency_ms} ms: give a positive time, or none for what failed")
    return 1.0 if latency_ms <= anchor.bound_ms else official(latency_ms, anchor.bound_ms, anchor.baseline_ms)


def latency_for(wanted: float, anchor: Anchor) -> float:
    """The latency that scores `wanted` (above 0, at most 1), in milliseconds."""
    if not 0 < wanted <= 1:
        raise ScoreError(f"a score of {wanted}: it lies above 0 and is at most 1")
    return anchor.bound_ms + (anchor.baseline_ms - anchor.bound_ms) * (1 / wanted - 1)


def geometric_mean(values: Sequence[float]) -> float | None:
    """Of positive values; None for none."""
    return math.exp(math.fsum(map(math.log, values)) / len(values)) if values else None


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


@dataclass(frozen=True)
class Cell:
    """One workload. `latency_ms` is None where nothing passed, `anchor` where none is known; either counts 0."""

    uuid: str
    latency_ms: float | None
    anchor: Anchor | None

    @property
    def score(self) -> float:
        return 0.0 if self.latency_ms is None or self.anchor is None else score(self.latency_ms, self.anchor)

    @property
    def speedup(self) -> float | None:
        """T_b / T_k."""
        return None if self.latency_ms is None or self.anchor is None else self.anchor.baseline_ms / self.latency_ms

    @property
    def below_bound(self) -> bool:
        """Faster than the speed of light: to be looked at."""
        return self.latency_ms is not None and self.anchor is not None and self.latency_ms < self.anchor.bound_ms


@dataclass(frozen=True)
class Row:
    """One problem of a board; also the extras that the public boards show."""

    problem: str
    collection: str
    cells: tuple[Cell, ...]

    @property
    def score(self) -> float:
        return mean([cell.score for cell in self.cells])

    @property
    def anchored(self) -> bool:
        """Whether every workload has an anchor."""
        return all(cell.anchor is not None for cell in self.cells)

    @property
    def latency_ms(self) -> float | None:
        """Geometric mean over the workloads that passed."""
        return geometric_mean([cell.latency_ms for cell in self.cells if cell.latency_ms is not None])

    @property
    def speedup(self) -> float | None:
        """Geometric mean of T_b / T_k over the workloads that have both."""
        return geometric_mean([cell.speedup for cell in self.cells if cell.speedup is not None])

    @property
    def fast(self) -> int:
        """Workloads that beat their baseline."""
        return sum(cell.speedup is not None and cell.speedup > 1 for cell in self.cells)

    @property
    def passed(self) -> int:
        return sum(cell.latency_ms is not None for cell in self.cells)


@dataclass(frozen=True)
class Board:
    """All problems given, against anchors of one device and one provenance."""

    device: str
    provenance: Provenance
    rows: tuple[Row, ...]

    @property
    def headline(self) -> float:
        """Mean over all problems given: missing, failed or without an anchor is 0."""
        return mean([row.score for row in self.rows])

    @property
    def over_anchored(self) -> float | None:
        """Mean over the problems whose every workload has an anchor: another number; show `anchored` beside it."""
        scores = [row.score for row in self.rows if row.anchored]
        return mean(scores) if scores else None

    @property
    def anchored(self) -> int:
        return sum(row.anchored for row in self.rows)

    @property
    def collections(self) -> dict[str, float]:
        """Mean of each collection, in the order in which they came."""
        names = dict.fromkeys(row.collection for row in self.rows)
        return {name: mean([row.score for row in self.rows if row.collection == name]) for name in names}

    @property
    def attempted(self) -> int:
        return sum(row.passed > 0 for row in self.rows)

    @property
    def below_bound(self) -> list[tuple[str, str]]:
        """(problem, uuid) of what is faster than its bound."""
        return [(row.problem, cell.uuid) for row in self.rows for cell in row.cells if cell.below_bound]


Latencies = Mapping[str, Mapping[str, float | None]]  # problem -> uuid -> milliseconds, None where it failed


def board(problems: Iterable[Problem], latencies: Latencies, anchors: Anchors) -> Board:
    """Score `latencies` of the problems given, which are those that the device can run.

    Latencies of problems or workloads that were not given count for nothing. Raises ScoreError for no problem at all.
    """
    rows = []
    for problem in problems:
        name = problem.definition.name
        times = latencies.get(name, {})
        cells = tuple(Cell(each.uuid, times.get(each.uuid), anchors.get(name, each.uuid)) for each in problem.workloads)
        if not cells:
            raise ScoreError(f"problem {name} has no workload; a problem has at least one")
        rows.append(Row(name, problem.collection, cells))
    if not rows:
        raise ScoreError("no problem to score; give at least one that runs on this device")
    return Board(anchors.device, anchors.provenance, tuple(rows))


@dataclass(frozen=True)
class Headline:
    """The two boards that are shown beside each other, never averaged."""

    scaled: Board
    measured: Board


def headline(problems: Sequence[Problem], latencies: Latencies, scaled: Anchors, measured: Anchors) -> Headline:
    """Scaled anchors first, measured beside. Raises ScoreError for anchors of the wrong provenance or two devices."""
    if (scaled.provenance, measured.provenance) != (Provenance.SCALED, Provenance.MEASURED):
        raise ScoreError(f"a headline is of scaled and measured anchors, not {scaled.provenance} "
                         f"and {measured.provenance}")  # fmt: skip
    if scaled.device != measured.device:
        raise ScoreError(f"scaled anchors are of {scaled.device}, measured ones of {measured.device}; take one device")
    return Headline(board(problems, latencies, scaled), board(problems, latencies, measured))
