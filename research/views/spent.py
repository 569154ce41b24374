"""What projects have spent, in all and by thread. Results are never changed, so the sums of old ones are kept."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from research.models import Project, Result
from research.models.trial import CHECK

# Rows may become visible out of the order of their ids while their transactions run; none runs for that long.
SETTLED_AFTER = timedelta(minutes=2)
Place = tuple[int, int | None]  # project and thread


@dataclass
class Cost:
    trials: int = 0
    seconds: float = 0.0  # device-seconds

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.trials + other.trials, self.seconds + other.seconds)


@dataclass(frozen=True)
class Spent:
    """`threads` by pk; None holds what belongs to no thread: noise floor and closing."""

    all: Cost
    threads: Mapping[int | None, Cost]


class _Sums:
    """All results up to `newest`, by project and thread: 40,000 results are summed once, not at every look."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.newest: tuple[int, datetime] | None = None  # id and time of the last result that is in
        self.costs: dict[Place, Cost] = defaultdict(Cost)

    def now(self) -> dict[Place, Cost]:
        """The kept sums and what came since. Not filtered by project: the ids alone find the new rows."""
        with self.lock:
            if self.newest and not Result.every.filter(pk=self.newest[0], created=self.newest[1]).exists():
                self.newest = None  # the table is another one: a restored backup, the next test
                self.costs.clear()
            fresh = Result.every.filter(pk__gt=self.newest[0] if self.newest else 0).order_by("pk")
            young: dict[Place, Cost] = defaultdict(Cost)
            settled = timezone.now() - SETTLED_AFTER
            for pk, project, thread, seconds, created, stage in fresh.values_list(
                "pk", "trial__project_id", "trial__experiment__thread_id", "device_seconds", "created", "trial__stage"
            ):
                is_settled = not young and created < settled
                into = self.costs if is_settled else young
                cost = into[project, thread]
                cost.trials += stage != CHECK  # a check costs its seconds and is no trial of the budget
                cost.seconds += seconds
                if is_settled:
                    self.newest = pk, created
            places = {*self.costs, *young}
            return {place: self.costs.get(place, Cost()) + young.get(place, Cost()) for place in places}


sums = _Sums()


def spent_of(project: Project) -> Spent:
    mine = {thread: cost for (pk, thread), cost in sums.now().items() if pk == project.pk}
    return Spent(sum(mine.values(), Cost()), mine)
