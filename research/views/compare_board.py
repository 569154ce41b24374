"""Experiments side by side: what each gained over its own baseline, what their code sets differently, their curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from urllib.parse import urlencode

from django.db.models import Max, Q, QuerySet
from django.urls import reverse

from research.models import Experiment, Project, Result, Trial, Verdict
from research.templatetags.lab import percent, signed
from research.views.constants import Difference, differing
from research.views.curves import Curves, Line, draw, metrics_of
from research.views.pairs import Mean, Pairs, mean, order_of, pairs_of, short
from research.views.thread_board import Row

MOST = 8  # experiments side by side: as many as there are colours
LINES_EACH = 8  # with every pair drawn
SUGGESTED = 12


@dataclass(frozen=True)
class Column:
    """One of the compared experiments."""

    experiment: Experiment
    pairs: Pairs
    verdict: Verdict | None
    machines: list[str]
    isolation: int | None  # the lowest level among its results
    slot: int
    without: str  # the address of the page without it

    @property
    def name(self) -> str:
        subject = self.experiment.subject
        return subject.idea.name if subject else self.experiment.label or str(self.experiment.purpose)

    @property
    def gain(self) -> Mean | None:
        """Over the pairs that decide: confirm pairs where there are any."""
        return mean(self.pairs.gains(self.pairs.furthest))


@dataclass(frozen=True)
class Between:
    """What can be said of two of them."""

    first: Column
    second: Column
    text: str
    difference: float | None = None
    error: float | None = None

    @property
    def pm(self) -> str:
        return short(self.error)


class CompareBoard:
    """The parts of the compare page, for one person: `seen` are the projects that they may see."""

    most = MOST

    def __init__(
        self, seen: QuerySet[Project], ids: Sequence[str], everything: bool = False, metrics: Sequence[str] = ()
    ) -> None:
        self.seen = seen
        self.ids = list(dict.fromkeys(ids))
        self.everything = everything
        self.metrics = metrics

    @cached_property
    def columns(self) -> list[Column]:
        rows = Experiment.objects.filter(public_id__in=self.ids[:MOST], project__in=self.seen)
        rows = rows.select_related("project", "thread", "verdict", "candidate__idea", "original__candidate__idea")
        found = {row.public_id: row for row in rows}
        chosen = [found[id] for id in self.ids if id in found]
        pairs, classes = pairs_of(chosen), self._classes(chosen)
        levels = Experiment.objects.filter(pk__in=[row.pk for row in chosen]).isolation()
        return [
            Column(
                row, pairs[row.pk], getattr(row, "verdict", None), classes.get(row.pk, []), levels.get(row.pk), slot,
                _address([other.public_id for other in chosen if other != row]),
            )
            for slot, row in enumerate(chosen)
        ]  # fmt: skip

    @property
    def missing(self) -> list[str]:
        """Asked for, and not there, not this person's, or too many."""
        found = {column.experiment.public_id for column in self.columns}
        return [id for id in self.ids if id not in found]

    @property
    def warnings(self) -> list[str]:
        """Why these numbers may not be comparable."""
        projects = {column.experiment.project for column in self.columns}
        checks = {
            "benchmark and preset": {f"{project.benchmark} {project.preset}" for project in projects},
            "machine class": {name for column in self.columns for name in column.machines},
            "data": {project.data_id[:12] for project in projects},
        }
        return [f"{what} differs: {', '.join(sorted(found))}" for what, found in checks.items() if len(found) > 1]

    @property
    def differences(self) -> list[Difference] | None:
        """None where they are of several projects: their trees have nothing to do with each other."""
        projects = {column.experiment.project for column in self.columns}
        if len(projects) != 1:
            return None
        commits = [column.experiment.candidate_commit for column in self.columns]
        return differing(projects.pop().repository_path, commits)

    @property
    def curves(self) -> Curves:
        """The candidates: of each experiment its first confirm pair, or with `everything` the newest pairs."""
        lines = []
        for column in self.columns:
            trials = column.experiment.trials.filter(
                arm=Trial.Arm.CANDIDATE, state__in=(Trial.State.LEASED, Trial.State.ENDED)
            )
            ordered = sorted(trials, key=lambda trial: order_of(trial.stage, trial.pair))
            ends = [trial for trial in ordered if trial.stage == column.pairs.furthest] or ordered[-1:]
            chosen = ordered[-LINES_EACH:] if self.everything else ends[:1]
            lines += [
                Line(trial, f"#{column.experiment.number} {trial.stage} {trial.pair + 1}", column.slot)
                for trial in chosen
            ]
        metrics = metrics_of([line.trial for line in lines])
        return Curves(draw(lines, [], metrics, self.metrics), metrics)

    @property
    def between(self) -> list[Between]:
        return [_between(first, second) for first, second in combinations(self.columns, 2)]

    def suggested(self, query: str) -> list[Row]:
        """What to add: as asked for, else the latest verdict of each thread and what is newest."""
        rows = Experiment.objects.filter(project__in=self.seen).exclude(public_id__in=self.ids)
        rows = rows.exclude(purpose=Experiment.Purpose.NOISE)
        if query:
            wanted = Q(candidate__idea__hypothesis__icontains=query) | Q(candidate__idea__title__icontains=query)
            number = query.removeprefix("#")
            wanted |= Q(number=int(number)) if number.isdigit() and len(number) < 9 else Q(project__name=query)
            rows = rows.filter(wanted)
        else:
            latest = rows.filter(verdict__isnull=False, thread__isnull=False).values("thread")
            newest = latest.annotate(newest=Max("pk")).values_list("newest", flat=True)
            first = list(self._listed(rows.filter(pk__in=list(newest)))[:SUGGESTED])
            rest = self._listed(rows.exclude(pk__in=newest).filter(verdict__isnull=False))
            return self._rows(first + list(rest[: SUGGESTED - len(first)]))
        return self._rows(list(self._listed(rows)[:SUGGESTED]))

    @staticmethod
    def _listed(rows: QuerySet[Experiment]) -> QuerySet[Experiment]:
        return rows.select_related("project", "thread", "verdict", "candidate__idea", "original").order_by("-pk")

    def _rows(self, rows: list[Experiment]) -> list[Row]:
        pairs = pairs_of(rows)
        return [Row(row, pairs[row.pk], getattr(row, "verdict", None)) for row in rows]

    @staticmethod
    def _classes(rows: Sequence[Experiment]) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        results = Result.objects.filter(trial__experiment__in=rows).order_by("trial__experiment")
        for pk, name in results.values_list("trial__experiment", "machine_class").distinct():
            found.setdefault(pk, []).append(name)
        return found

    @property
    def table(self) -> list[list[str]]:
        """The effects as plain cells, for CSV and Markdown."""
        head = ["experiment", "project", "thread", "change", "baseline", "candidate", "gain", "low", "high", "relative",
                "confirm pairs", "e-value", "verdict", "machine class", "isolation level"]  # fmt: skip
        return [head, *(_cells(column) for column in self.columns)]

    @property
    def markdown(self) -> str:
        head, *rows = [["".join(_plain(char) for char in cell) for cell in row] for row in self.table]
        lines = [head, ["---"] * len(head), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(column: Column) -> list[str]:
    row, verdict = column.experiment, column.verdict
    numbers = ["", "", "", "", "", ""]
    if verdict is not None:
        numbers = [
            signed(verdict.effect), signed(verdict.low), signed(verdict.high), percent(verdict.relative),
            str(verdict.pairs), f"{verdict.e_value:.3g}",
        ]  # fmt: skip
    return [
        f"#{row.number}", row.project.name, str(row.thread.number) if row.thread else "", column.name,
        row.baseline_commit[:8], row.candidate_commit[:8], *numbers,
        verdict.kind.replace("_", " ") if verdict else str(row.state), "; ".join(column.machines),
        "" if column.isolation is None else str(column.isolation),
    ]  # fmt: skip


def _plain(char: str) -> str:
    """One character of a Markdown cell: nothing in a hypothesis may end the cell or become markup."""
    if char in "|\\`*_[]<>#!":
        return f"\\{char}"
    return " " if char in "\r\n" else char


def _between(first: Column, second: Column) -> Between:
    one, two = first.experiment, second.experiment
    if one.project_id != two.project_id:
        return Between(first, second, "of different projects: their gains are not of one measure")
    if one.candidate_commit == two.baseline_commit or two.candidate_commit == one.baseline_commit:
        upper, lower = (second, first) if one.candidate_commit == two.baseline_commit else (first, second)
        text = f"#{upper.experiment.number} was measured on top of #{lower.experiment.number}: their gains add up"
        return Between(first, second, text, *_total(first, second))
    if one.baseline_commit != two.baseline_commit:
        return Between(first, second, "measured against different baselines: each gain holds for its own")
    shared = _shared(first, second)
    if len(shared) > 1 and (paired := mean(shared)) is not None:
        return Between(first, second, f"paired by {len(shared)} shared seeds", paired.value, paired.error)
    difference, error = _total(first, second, -1)
    if difference is None:
        return Between(first, second, "the same baseline; one of them has no pair yet")
    text = "the same baseline, other seeds: the difference of two independent means"
    return Between(first, second, text, difference, error)


def _total(first: Column, second: Column, sign: int = 1) -> tuple[float | None, float | None]:
    """Sum (or difference) of the two mean gains, with the error of independent means."""
    if first.gain is None or second.gain is None:
        return None, None
    errors = (first.gain.error, second.gain.error)
    error = math.hypot(*errors) if None not in errors else None  # type: ignore[arg-type]
    return first.gain.value + sign * second.gain.value, error


def _shared(first: Column, second: Column) -> list[float]:
    """Differences of gain on the seeds that both have, in the stage that decides."""
    others = {pair.seed: pair.gain for pair in second.pairs.of(second.pairs.furthest)}
    return [
        pair.gain - other
        for pair in first.pairs.of(first.pairs.furthest)
        if pair.gain is not None and (other := others.get(pair.seed)) is not None
    ]


def _address(ids: Sequence[str]) -> str:
    return f"{reverse('compare')}?{urlencode({'e': ','.join(ids)}, safe=',')}" if ids else reverse("compare")
