"""What share of a busy machine's time went into budgeted training, by preset.

A machine works without a break where it was given a trial before the one before was over, or at most `BREAK_SECONDS`
later. Such a trial costs the time from the end of the one before to its own end: what overlapped costs nothing twice,
and attaching, pauses and waiting for work are no part of it. Of machines with one slot: where trials run side by side,
the end of one says nothing of what the next one costs.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from statistics import median
from typing import Any

from research.models import Project, Result

BREAK_SECONDS = 2.0


def stretches(project: Project) -> dict[str, dict[str, Any]]:
    """By preset: trials of unbroken work, median wall seconds of one, and budgeted training over all their seconds.

    `budgeted_share_median` is the share of a median trial: half of them did better, whatever a cold compiler cost.
    """
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    before: dict[int, datetime] = {}
    for result, granted, released in _ended(project):
        last = before.get(result.machine_id)
        if last is not None and (granted - last).total_seconds() <= BREAK_SECONDS:
            span = (released - last).total_seconds()
            if span > 0:
                found[result.trial.preset or project.preset].append((result.seconds["train_wall"], span))
        before[result.machine_id] = released
    return {preset: _row(rows) for preset, rows in sorted(found.items())}


def _ended(project: Project) -> list[tuple[Result, datetime, datetime]]:
    """Results of trials that ran here with a budget, by the end of their lease."""
    results = Result.objects.filter(trial__project=project, machine__slots=1).select_related("trial")
    rows = [
        (result, lease.granted, lease.released)
        for result in results.prefetch_related("trial__leases")
        if "train_wall" in result.seconds and "total_wall" in result.seconds
        for lease in result.trial.leases.all()
        if lease.generation == result.generation and lease.released is not None
    ]
    return sorted(rows, key=lambda row: row[2])


def _row(rows: list[tuple[float, float]]) -> dict[str, Any]:
    return {
        "trials": len(rows),
        "seconds_median": round(median(span for _, span in rows), 1),
        "budgeted_share": round(sum(train for train, _ in rows) / sum(span for _, span in rows), 4),
        "budgeted_share_median": round(median(train / span for train, span in rows), 4),
    }
