"""What the trials behind a verdict cost and how they were watched: both arms' medians, audits, the gain taken apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from research.models import Result, Series, Trial
from research.templatetags.lab import duration
from research.validation.records import Direction
from research.validation.split import Curve, CurvePair, Split, split_gain
from research.views.curves import in_order
from research.views.experiment_board import ARMS, ExperimentBoard, Measured

FALLING = ("loss", "bpb", "bits", "error", "perplexity")  # names of metrics that everybody wants low
MEGABYTE = 2**20
PAIRS_READ = 24  # curves that are read for the split
# metric or seconds of a result -> (words, how to write it), in the order of the table
COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "train_cpu": ("training, CPU", duration),
    "train_wall": ("training, wall", duration),
    "warm_up": ("compiling and warming up", duration),
    "score_wall": ("scoring, wall", duration),
    "audit_wall": ("audits, wall", duration),
    "memory_bytes": ("peak memory", lambda value: f"{value / MEGABYTE:,.0f} MB"),
    "parameters": ("parameters", lambda value: f"{value:,.0f}"),
    "weight_bytes": ("weights", lambda value: f"{value / MEGABYTE:,.2f} MB"),
    "code_bytes": ("code", lambda value: f"{value / 1000:,.1f} kB"),
    "tokens_per_second": ("tokens a second", lambda value: f"{value:,.0f}"),
    "steps": ("steps in the budget", lambda value: f"{value:,.0f}"),
    "steps_per_second": ("steps a second", lambda value: f"{value:,.1f}"),
}
AUDITS = {
    "targeted": "future cut off, where it beats its reference most",
    "random": "future cut off, at random positions",
    "rescored": "answered again in another process and order",
    "streamed": "answered token by token",
}


@dataclass(frozen=True)
class Cost:
    """One row: medians of both arms, and the change as a share of the baseline."""

    name: str
    baseline: str
    candidate: str
    change: float | None


@dataclass(frozen=True)
class Audit:
    """One audit over the trials of the stage that decides: how many had it, and the worst difference of each arm."""

    name: str
    meaning: str
    trials: int
    worst: dict[str, float]

    @property
    def baseline(self) -> float | None:
        return self.worst.get("baseline")

    @property
    def candidate(self) -> float | None:
        return self.worst.get("candidate")


@dataclass(frozen=True)
class PairRow:
    """A row of the table of all pairs: the pair with where, how isolated and how long it was measured."""

    measured: Measured

    @property
    def slots(self) -> str:
        """`slots 0, 1`: which core or device each arm had, the baseline first."""
        numbers = [str(trial.slot) for trial in self.measured.trials]
        return f"slot{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}" if numbers else ""

    @property
    def levels(self) -> list[int]:
        """The isolation levels of its arms: one where both had the same."""
        return sorted({result.isolation_level for result in self.measured.results})

    @property
    def training(self) -> str:
        """Seconds of training on the clock of the benchmark: baseline / candidate."""
        times = [_training(result) for result in self.measured.results]
        return " / ".join(map(duration, times)) if any(times) else ""


def _training(result: Result) -> float | None:
    seconds: float | None = result.seconds.get("train_cpu") or result.seconds.get("train_wall")
    return seconds


class TrialsOf:
    """The trials of one experiment; costs and audits are of its furthest stage: what the verdict rests on."""

    def __init__(self, page: ExperimentBoard) -> None:
        self.page = page

    @cached_property
    def results(self) -> list[Result]:
        stage = self.page.pairs.furthest
        return [
            trial.result
            for trial in self.page.trials
            if trial.stage == stage and hasattr(trial, "result") and not trial.result.failure
        ]

    @property
    def groups(self) -> list[tuple[str, str, list[PairRow]]]:
        """(stage, the split that scores it, its pairs) in order."""
        return [(stage, split, [PairRow(row) for row in rows]) for stage, split, rows in self.page.measured]

    @property
    def isolation(self) -> int | None:
        """The lowest level among the trials that the verdict rests on."""
        return min((result.isolation_level for result in self.results), default=None)

    @property
    def weights(self) -> list[tuple[str, str]]:
        """(trial, hash of the weights that were scored) of every trial."""
        rows = [trial for trial in self.page.trials if hasattr(trial, "result")]
        return [(row.name, str(row.result.hashes["weights"])) for row in rows if "weights" in row.result.hashes]

    @property
    def costs(self) -> list[Cost]:
        rows = []
        for name, (words, written) in COSTS.items():
            found = {arm: self._values(arm, name) for arm in ARMS}
            if not all(found.values()):
                continue
            before, after = (median(found[arm]) for arm in ARMS)
            rows.append(Cost(words, written(before), written(after), (after - before) / before if before else None))
        return rows

    def _values(self, arm: str, name: str) -> list[float]:
        found = []
        for result in self.results:
            if result.trial.arm != arm:
                continue
            known = {**result.seconds, **result.metrics}
            steps = self.steps_done.get(result.trial_id)
            if steps is not None:
                known.setdefault("steps", steps)
            if known.get("steps") and known.get("train_wall"):
                known.setdefault("steps_per_second", known["steps"] / known["train_wall"])
            value = known.get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                found.append(float(value))
        return found

    @cached_property
    def steps_done(self) -> dict[int, int]:
        """The last step that each trial logged, by its pk."""
        return {
            trial: int(curve.steps.max())
            for pair in self._curves.values()
            for trial, curve in pair.items()
            if len(curve.steps)
        }

    @property
    def audits(self) -> list[Audit]:
        """By the names that the evaluator reports: `audit_random_worst` is the audit `random`."""
        found: dict[str, dict[str, list[float]]] = {}
        for result in self.results:
            for name, value in result.metrics.items():
                if name.startswith("audit_") and name.endswith("_worst") and isinstance(value, int | float):
                    arms = found.setdefault(name.removeprefix("audit_").removesuffix("_worst"), {})
                    arms.setdefault(result.trial.arm, []).append(float(value))
        return [
            Audit(
                name.replace("_", " "), AUDITS.get(name, ""), sum(map(len, arms.values())),
                {arm: max(values) for arm, values in arms.items()},
            )
            for name, arms in found.items()
        ]  # fmt: skip

    # The gain taken apart

    @cached_property
    def split_metric(self) -> tuple[str, Direction] | None:
        """The curve that tells most, as far as its direction is known; both arms must have logged it."""
        score = self.page.metric
        lower = Direction.LOWER if score.lower_is_better else Direction.HIGHER
        trials = {trial.pk: trial.arm for trial in self._deciding}
        rows = Series.objects.newest().filter(trial__in=trials).values_list("metric", "trial")
        arms: dict[str, set[str]] = {}
        for metric, trial in rows:
            arms.setdefault(metric, set()).add(trials[trial])
        for metric in in_order([metric for metric, seen in arms.items() if len(seen) == len(ARMS)]):
            if metric == score.name:
                return metric, lower
            if any(word in metric.lower() for word in FALLING):
                return metric, Direction.LOWER
        return None

    @cached_property
    def split(self) -> Split | None:
        if self.split_metric is None:
            return None
        pairs = [CurvePair(*arms.values()) for arms in self._curves.values() if len(arms) == len(ARMS)]
        return split_gain(pairs, self.split_metric[1])

    @cached_property
    def _deciding(self) -> list[Trial]:
        stage = self.page.pairs.furthest
        return [trial for trial in self.page.trials if trial.stage == stage and hasattr(trial, "result")]

    @cached_property
    def _curves(self) -> dict[int, dict[int, Curve]]:
        """pair -> {trial: curve}, the baseline first."""
        if self.split_metric is None:
            return {}
        trials = {trial.pk: trial for trial in self._deciding if trial.pair < PAIRS_READ}
        rows = Series.objects.newest().filter(trial__in=trials, metric=self.split_metric[0])
        trial_of = dict(rows.values_list("pk", "trial"))
        found: dict[int, dict[int, Curve]] = {}
        read = {trial_of[pk]: Curve(*points) for pk, points in rows.points()}
        for trial in sorted(trials.values(), key=lambda trial: (trial.pair, trial.arm)):
            if trial.pk in read:
                found.setdefault(trial.pair, {})[trial.pk] = read[trial.pk]
        return found
