"""What the experiment page shows, gathered part by part: pairs with their trials, guards, surroundings, logs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from django.db.models import F, Q
from django.utils.safestring import SafeString, mark_safe

from research.drawing.strip import Effect, strip
from research.drawing.strip import Pair as Dot
from research.logtext import tail
from research.loop.floors import noise_floor
from research.models import Experiment, Finding, Idea, Lease, NoiseFloor, Result, Trial, Verdict
from research.validation.outcomes import Pooled
from research.validation.records import Direction, Rule
from research.validation.words import rule_words
from research.views.curves import Curves, curves_of
from research.views.datawords import DataUsed, data_used
from research.views.now import Now, measuring
from research.views.pairs import Pair, Pairs, direction_of, order_of, pairs_of
from research.views.rulewords import what_next
from runners.isolation import NAMES

ALL_LINES, SOME_LINES = 54, 12
ARMS = (Trial.Arm.BASELINE, Trial.Arm.CANDIDATE)
PURPOSES = {
    Experiment.Purpose.NOISE: "Noise floor: the start against itself",
    Experiment.Purpose.CLOSING: "The champion against the start, on fresh seeds",
}


@dataclass(frozen=True)
class Measured:
    """One row of the pairs' table: the pair, and the trials of its arms."""

    pair: Pair
    baseline: Trial | None
    candidate: Trial | None

    @property
    def trials(self) -> list[Trial]:
        return [trial for trial in (self.baseline, self.candidate) if trial is not None]

    @property
    def results(self) -> list[Result]:
        return [trial.result for trial in self.trials if hasattr(trial, "result")]

    @property
    def problems(self) -> str:
        """Of many, those that it measures."""
        return ", ".join(self.trials[0].problems) if self.trials else ""

    @property
    def machine(self) -> str:
        names = [result.machine.name for result in self.results] or [lease.machine.name for lease in self.leases]
        return ", ".join(dict.fromkeys(names))

    @property
    def leases(self) -> list[Lease]:
        """The newest lease of each arm."""
        return [leases[-1] for trial in self.trials if (leases := list(trial.leases.all()))]

    @property
    def started(self) -> object:
        """When the running arms were taken."""
        return min((lease.granted for lease in self.leases if lease.released is None), default=None)

    @property
    def seconds(self) -> float | None:
        return max((result.seconds.get("total_wall") or result.device_seconds for result in self.results), default=None)

    @property
    def failure(self) -> str:
        """What went wrong in each arm. The message is the evaluator's, the words in it may be the candidate's."""
        failed = [result for result in self.results if result.failure]
        return "; ".join(f"{row.trial.arm}: {row.failure.replace('_', ' ')}, {row.message}" for row in failed)


@dataclass(frozen=True)
class Guard:
    """A number besides the score: mean of each arm over the furthest stage."""

    name: str
    baseline: str
    candidate: str
    change: float | None


@dataclass(frozen=True)
class Sighting:
    """One fact of the surroundings; more than one value asks for a look."""

    name: str
    values: list[str]

    @property
    def differs(self) -> bool:
        return len(self.values) > 1


class ExperimentBoard:
    """The parts of one experiment's page. Everything is looked up when a template asks."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.project = experiment.project
        self.metric = experiment.project.contract.metric
        self.rule = Rule.from_json(experiment.rule)
        self.direction: Direction = direction_of(experiment)

    @cached_property
    def idea(self) -> Idea | None:
        subject = self.experiment.subject
        return subject.idea if subject else None

    @property
    def isolation(self) -> int | None:
        """The lowest level among its results: what its numbers rest on."""
        return min((row.isolation_level for row in self.results), default=None)

    @property
    def title(self) -> str:
        if self.experiment.purpose == Experiment.Purpose.REPLICATE and self.experiment.original:
            return f"More seeds of #{self.experiment.original.number}"
        if self.experiment.label:
            return self.experiment.label
        return self.idea.name if self.idea else PURPOSES.get(Experiment.Purpose(self.experiment.purpose), "Experiment")

    @cached_property
    def verdict(self) -> Verdict | None:
        return getattr(self.experiment, "verdict", None)

    @cached_property
    def floor(self) -> NoiseFloor | None:
        return noise_floor(self.project)

    @property
    def is_running(self) -> bool:
        return self.experiment.state == Experiment.State.RUNNING

    @cached_property
    def now(self) -> Now | None:
        return measuring([self.experiment]).get(self.experiment.pk) if self.is_running else None

    @property
    def next_step(self) -> str:
        return what_next(self.experiment, self.pairs) if self.now else ""

    @property
    def rule_words(self) -> list[str]:
        return rule_words(self.rule)

    @cached_property
    def pairs(self) -> Pairs:
        return pairs_of([self.experiment])[self.experiment.pk]

    @cached_property
    def trials(self) -> list[Trial]:
        rows = self.experiment.trials.select_related("result__machine", "result__log")
        return list(rows.prefetch_related("leases__machine").order_by("pk"))

    @cached_property
    def measured(self) -> list[tuple[str, str, list[Measured]]]:
        """(stage, the split that scores it, its pairs) in order."""
        arms = {(trial.stage, trial.pair, trial.arm): trial for trial in self.trials}
        groups = []
        for stage, pairs in self.pairs.stages:
            rows = [Measured(pair, *(arms.get((stage, pair.number, arm)) for arm in ARMS)) for pair in pairs]
            split = next((trial.split for row in rows for trial in row.trials), "")
            groups.append((stage, split, rows))
        return groups

    @cached_property
    def pooled(self) -> Pooled | None:
        """With its replicates; None where there are none that ended."""
        original = self.experiment.original or self.experiment
        return original.pooled() if original.replicates.filter(verdict__isnull=False).exists() else None

    @property
    def level(self) -> str:
        """How often an end of the interval may be wrong."""
        return f"{100 * self.rule.level:g} %"

    @cached_property
    def findings(self) -> list[Finding]:
        return list(self.experiment.findings.select_related("trial", "overridden_by").order_by("-severity", "pk"))

    @cached_property
    def replicates(self) -> list[Experiment]:
        original = self.experiment.original or self.experiment
        return list(original.replicates.exclude(pk=self.experiment.pk).select_related("verdict").order_by("number"))

    @property
    def more_topics(self) -> str:
        """What rings when there is more evidence: this experiment, and replicates that are being measured."""
        running = [row for row in self.replicates if row.state == Experiment.State.RUNNING]
        return " ".join(f"experiment:{row.public_id}" for row in (self.experiment, *running))

    @property
    def strip_svg(self) -> SafeString:
        """The seeds strip. Every text in it is escaped where it is drawn."""
        return mark_safe(self._strip())  # noqa: S308

    def _strip(self) -> str:
        dots = [
            Dot(pair.stage, pair.seed, pair.baseline.score, pair.candidate.score, pair.gain)
            for pair in self.pairs.rows
            if pair.gain is not None and pair.baseline and pair.candidate
            and pair.baseline.score is not None and pair.candidate.score is not None
        ]  # fmt: skip
        verdict, effect = self.verdict, None
        if verdict is not None and verdict.effect is not None and verdict.pairs:
            effect = Effect(verdict.effect, verdict.shrunk, verdict.low, verdict.high)
        sigma = self.floor.sigma_pair if self.floor else None
        label = f"{self.metric.name}, {self.metric.unit}" if self.metric.unit != self.metric.name else self.metric.name
        return strip(dots, effect, sigma, label, self.direction is Direction.LOWER)

    def curves(self, chosen: Sequence[str], everything: bool) -> Curves:
        return curves_of(self.experiment, chosen, ALL_LINES if everything else SOME_LINES)

    @cached_property
    def results(self) -> list[Result]:
        return [trial.result for trial in self.trials if hasattr(trial, "result")]

    @property
    def guards(self) -> list[Guard]:
        """Metrics of the evaluator that are no score: what the gain costs."""
        return self._compare("metrics")

    @property
    def phases(self) -> list[Guard]:
        return self._compare("seconds")

    def _compare(self, field: str) -> list[Guard]:
        arms = {arm: self._means(field, arm) for arm in ARMS}
        base, cand = (arms[arm] for arm in ARMS)
        return [
            Guard(
                _title(name), amount(name if field == "metrics" else "seconds", base.get(name)),
                amount(name if field == "metrics" else "seconds", cand.get(name)),
                _change(base.get(name), cand.get(name)),
            )
            for name in dict.fromkeys([*base, *cand])
        ]  # fmt: skip

    def _means(self, field: str, arm: str) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        for trial in self.trials:
            if trial.arm != arm or trial.stage != self.pairs.furthest or not hasattr(trial, "result"):
                continue
            for name, value in getattr(trial.result, field).items():
                if isinstance(value, int | float) and math.isfinite(value):
                    found.setdefault(str(name), []).append(float(value))
        return {name: fmean(values) for name, values in found.items()}

    @property
    def surroundings(self) -> list[Sighting]:
        """Where the trials ran and with which judge, data and environment."""
        rows = self.results
        facts: dict[str, list[str]] = {
            "machine": [row.machine.name for row in rows],
            "machine class": [row.machine_class for row in rows],
            "validation data": [self.data.said(split) for split in dict.fromkeys(t.split for t in self.trials)],
            "isolation": [f"level {row.isolation_level}, {NAMES.get(row.isolation_level, '')}" for row in rows],
        }
        for row in rows:
            for name, value in row.hashes.items():
                if name not in ("weights", "tree", "cache", "split"):  # of each trial, arm or stage its own
                    facts.setdefault(f"{name} hash", []).append(str(value)[:12])
            for name, value in row.surroundings.items():
                if name not in ("seed", "megahertz"):
                    facts.setdefault(name, []).append(str(value))
        return [Sighting(name, list(dict.fromkeys(values))) for name, values in facts.items() if values]

    @cached_property
    def data(self) -> DataUsed:
        return data_used(self.project)

    @cached_property
    def again(self) -> list[Lease]:
        """Leases that ended without a result: the trial was done again."""
        without = Q(generation__lt=F("trial__generation")) | ~Q(trial__state=Trial.State.ENDED)
        rows = Lease.objects.filter(without, trial__experiment=self.experiment, released__isnull=False)
        return list(rows.select_related("trial", "machine").order_by("-granted")[:20])

    @cached_property
    def logged(self) -> list[Trial]:
        """Trials whose log was kept: failed ones first, then by stage and pair."""
        kept = [trial for trial in self.trials if hasattr(trial, "result") and trial.result.log_id]
        return sorted(kept, key=lambda trial: (not trial.result.failure, order_of(trial.stage, trial.pair), trial.arm))

    def log(self, chosen: str) -> Log | None:
        """The end of one trial's log: the chosen one's, else the first that failed, else the newest candidate's."""
        failed = [trial for trial in self.logged if trial.result.failure]
        candidates = [trial for trial in self.logged if trial.arm == Trial.Arm.CANDIDATE]
        asked = [trial for trial in self.logged if trial.public_id == chosen]
        trial = next(iter(asked or failed[:1] or candidates[-1:] or self.logged[:1]), None)
        if trial is None or trial.result.log is None:
            return None
        try:
            lines, more = tail(trial.result.log.path)
        except FileNotFoundError:
            return Log(trial, [], False, missing=True)
        return Log(trial, lines, more)


@dataclass(frozen=True)
class Log:
    trial: Trial
    lines: list[str]
    more: bool
    missing: bool = False

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def amount(name: str, value: float | None) -> str:
    """A number as its name asks: bytes as MB, seconds with their unit, counts whole."""
    if value is None:
        return "–"
    if name.endswith("bytes"):
        for unit in ("B", "kB", "MB", "GB"):
            if abs(value) < 1000 or unit == "GB":
                return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
            value /= 1000
    if name.endswith("seconds"):
        return f"{value:.2f} s"
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"


def _title(name: str) -> str:
    return {"memory_bytes": "peak memory", "weight_bytes": "weights"}.get(name) or name.replace("_", " ")


def _change(old: float | None, new: float | None) -> float | None:
    return (new - old) / abs(old) if old and new is not None else None
