"""Of many problems, how much each still has to gain before its bound. Used by steps.

A problem's room is that of its newest trial with the same code: results are frozen, so each is read once.
"""

from __future__ import annotations

from functools import lru_cache

from research.loop.problems import entries
from research.models import Project, Result

MOST = 5_000  # results that are read at first, the newest


class _Known:
    """What a process has read of one project."""

    def __init__(self) -> None:
        self.last = 0
        self.rooms: dict[tuple[str, str], float] = {}  # (problem, git's hash of its folder) -> room


@lru_cache(maxsize=8)
def _known(project: str) -> _Known:
    """By public id: numbers of rows may come again."""
    return _Known()


def room_of(project: Project, commit: str) -> dict[str, float]:
    """Problem -> share of its score that could still be gained with the code of a commit; where that is known."""
    if not project.problems:
        return {}
    known, contract = _known(project.public_id), project.contract
    results = Result.objects.filter(trial__project=project, score__isnull=False, pk__gt=known.last)
    rows = results.order_by("-pk").values_list("pk", "trial__commit", "metrics")[:MOST]
    for pk, measured, metrics in reversed(rows):
        mine = entries(project.repository_path, measured)
        known.rooms |= {(name, mine[name]): room for name, room in contract.room(metrics).items() if name in mine}
        known.last = pk
    here = entries(project.repository_path, commit)
    return {name: known.rooms[name, at] for name, at in here.items() if (name, at) in known.rooms}
