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

from django.db.models import F

from research.models import Lease, Project
from research.models.trial import CHECK

BREAK_SECONDS = 2.0


def stretches(project: Project) -> dict[str, dict[str, Any]]:
    """By preset: trials of unbroken work, median wall seconds of one, and budgeted training over all their seconds.

    `budgeted_share_median` is the share of a median trial: half of them did better, whatever a cold compiler cost.
    """
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    before: dict[int, datetime] = {}
    ended = Lease.objects.filter(
        trial__project=project, trial__result__generation=F("generation"), released__isnull=False, machine__slots=1,
    ).exclude(trial__stage=CHECK)  # fmt: skip
    rows = ended.order_by("released").values_list(
        "machine", "granted", "released", "trial__preset", "trial__result__seconds"
    )
    for machine, granted, released, preset, seconds in rows:
        if released is None or not {"train_wall", "total_wall"} <= seconds.keys():
            continue  # nothing ran: a shared baseline
        last = before.get(machine)
        if last is not None and (granted - last).total_seconds() <= BREAK_SECONDS and released > last:
            found[preset or project.preset].append((seconds["train_wall"], (released - last).total_seconds()))
        before[machine] = released
    return {preset: _row(trials) for preset, trials in sorted(found.items())}


def _row(rows: list[tuple[float, float]]) -> dict[str, Any]:
    return {
        "trials": len(rows),
        "seconds_median": round(median(span for _, span in rows), 1),
        "budgeted_share": round(sum(train for train, _ in rows) / sum(span for _, span in rows), 4),
        "budgeted_share_median": round(median(train / span for train, span in rows), 4),
    }
