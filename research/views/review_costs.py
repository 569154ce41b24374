"""What a candidate costs beside its gain, on the merge page: guard metrics and times of both arms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from research.models import Result, Trial
from research.templatetags.lab import duration

MEGABYTE = 2**20


@dataclass(frozen=True)
class Guard:
    """What the candidate costs: means of both arms over the confirm trials."""

    name: str
    baseline: str
    candidate: str
    change: float | None  # share of the baseline


# metric or seconds of a result -> (words, how to write it)
KNOWN: dict[str, tuple[str, Callable[[float], str]]] = {
    "parameters": ("parameters", lambda value: f"{value:,.0f}"),
    "tokens_per_second": ("tokens a second", lambda value: f"{value:,.0f}"),
    "steps": ("steps in the budget", lambda value: f"{value:,.0f}"),
    "memory_bytes": ("memory", lambda value: f"{value / MEGABYTE:,.0f} MB"),
    "weight_bytes": ("weights", lambda value: f"{value / MEGABYTE:,.1f} MB"),
    "train_cpu": ("training, CPU", duration),
    "train_wall": ("training, wall", duration),
    "score_wall": ("scoring, wall", duration),
}


def guards_of(results: Sequence[Result]) -> list[Guard]:
    """Guard metrics and times of both arms, as far as the benchmark reports them."""
    found = []
    for name, (words, written) in KNOWN.items():
        arms = {arm: _values(results, arm, name) for arm in (Trial.Arm.BASELINE, Trial.Arm.CANDIDATE)}
        if not all(arms.values()):
            continue
        before, after = fmean(arms[Trial.Arm.BASELINE]), fmean(arms[Trial.Arm.CANDIDATE])
        found.append(Guard(words, written(before), written(after), (after - before) / before if before else None))
    return found


def _values(results: Sequence[Result], arm: str, name: str) -> list[float]:
    rows = [{**result.seconds, **result.metrics} for result in results if result.trial.arm == arm]
    return [float(row[name]) for row in rows if name in row and isfinite(row[name])]
