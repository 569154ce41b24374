"""The pairs of an experiment as pages show them: which were measured, what each gained, what is still to come.

Reading only. Scores come from `Result`; what they mean is the rule's affair (`research.validation.rules`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import fmean, stdev

from research.models import Experiment, Trial
from research.validation.records import Direction

ORDER = {"noise": 0, "screen": 1, "extend": 2, "confirm": 3, "closing": 4}
# How a pair stands -> (glyph, tone); the words are read out beside them
GLYPHS = {
    "measured": ("●", "good"), "running": ("◐", "live"), "waiting": ("○", "quiet"), "failed": ("×", "bad"),
    "lost": ("×", "warn"), "cancelled": ("–", "quiet"),
}  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One trial of a pair, as far as a list needs it."""

    state: str
    score: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class Pair:
    """Both arms of one seed in one stage."""

    stage: str
    number: int
    seed: int
    direction: Direction
    baseline: Arm | None = None
    candidate: Arm | None = None

    @property
    def gain(self) -> float | None:
        """How much better the candidate was, in metric units; None until both arms have a score."""
        if self.baseline is None or self.candidate is None:
            return None
        if self.baseline.score is None or self.candidate.score is None:
            return None
        return self.direction.gain(self.baseline.score, self.candidate.score)

    @property
    def state(self) -> str:
        """One word for both arms: the one that matters most to a person."""
        arms = [arm for arm in (self.baseline, self.candidate) if arm is not None]
        if any(arm.failure for arm in arms):
            return "failed"
        states = {arm.state for arm in arms}
        if "leased" in states:
            return "running"
        return next((state for state in ("lost", "waiting", "cancelled") if state in states), "measured")

    @property
    def glyph(self) -> str:
        return GLYPHS[self.state][0]

    @property
    def tone(self) -> str:
        return GLYPHS[self.state][1]

    @property
    def label(self) -> str:
        return f"{self.stage} {self.number + 1}"


@dataclass(frozen=True)
class Pairs:
    """All pairs of one experiment, in the order of the stages."""

    rows: Sequence[Pair] = field(default_factory=list)

    @property
    def stages(self) -> list[tuple[str, list[Pair]]]:
        return [(stage, list(pairs)) for stage, pairs in groupby(self.rows, key=lambda pair: pair.stage)]

    def of(self, stage: str) -> list[Pair]:
        return [pair for pair in self.rows if pair.stage == stage]

    def gains(self, stage: str = "") -> list[float]:
        return [pair.gain for pair in self.rows if pair.gain is not None and stage in ("", pair.stage)]

    @property
    def furthest(self) -> str:
        """The last stage that has a measured pair; where none has, the last planned one."""
        measured = [pair.stage for pair in self.rows if pair.gain is not None]
        return (measured or [pair.stage for pair in self.rows] or [""])[-1]

    @property
    def measured(self) -> int:
        return len(self.gains())

    def scores(self, arm: str) -> list[float]:
        """Scores of an arm in the furthest stage: scores of different splits are never averaged."""
        arms = [getattr(pair, arm) for pair in self.of(self.furthest)]
        return [each.score for each in arms if each is not None and each.score is not None]

    @property
    def score(self) -> Mean | None:
        return mean(self.scores("candidate"))

    @property
    def so_far(self) -> Mean | None:
        """Mean gain of the furthest stage; no verdict, only what the pairs say until now."""
        return mean(self.gains(self.furthest))

    @property
    def words(self) -> str:
        """For people who do not see the strip: `screen: 1 measured; confirm: 3 measured, 1 running`."""
        parts = []
        for stage, pairs in self.stages:
            states = [pair.state for pair in pairs]
            counts = [f"{states.count(state)} {state}" for state in GLYPHS if state in states]
            parts.append(f"{stage}: {', '.join(counts)}")
        return "; ".join(parts) or "no pair planned yet"


@dataclass(frozen=True)
class Mean:
    """A mean with its standard error (None for a single value)."""

    value: float
    error: float | None
    count: int

    @property
    def pm(self) -> str:
        """The error to two digits, as it stands behind a ±."""
        return short(self.error)


def short(value: float | None) -> str:
    """Two significant digits, never with an exponent where a person reads it beside a score."""
    if value is None or not math.isfinite(value):
        return ""
    places = max(0, 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{min(places, 8)}f}"


def mean(values: Sequence[float]) -> Mean | None:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    error = stdev(finite) / math.sqrt(len(finite)) if len(finite) > 1 else None
    return Mean(fmean(finite), error, len(finite))


def order_of(stage: str, number: int) -> tuple[int, str, int]:
    return ORDER.get(stage, len(ORDER)), stage, number


def pairs_of(experiments: Iterable[Experiment]) -> dict[int, Pairs]:
    """The pairs of many experiments by pk, in one query."""
    directions = {row.pk: direction_of(row) for row in experiments}
    columns = ("experiment_id", "stage", "pair", "arm", "seed", "state", "result__score", "result__failure")
    trials = Trial.objects.filter(experiment__in=directions).values_list(*columns)
    found: dict[int, dict[tuple[int, str, int], tuple[int, dict[str, Arm]]]] = {pk: {} for pk in directions}
    for pk, stage, number, arm, seed, state, score, failure in trials:
        _, arms = found[pk].setdefault(order_of(stage, number), (seed, {}))
        arms[arm] = Arm(state, score, failure or "")
    return {
        pk: Pairs([
            Pair(stage, number, seed, directions[pk], arms.get("baseline"), arms.get("candidate"))
            for (_, stage, number), (seed, arms) in sorted(places.items())
        ])
        for pk, places in found.items()
    }  # fmt: skip


def direction_of(experiment: Experiment) -> Direction:
    """Which way is better, by the rule that was frozen with the experiment."""
    return Direction(experiment.rule["direction"])
