"""What was measured of each problem, by the code that it was measured with: the rows that the kernel board stands on.

The code of a problem in a commit is named by the commit that last changed the problem's folder on the way there. So a
measurement of `main` holds on for a problem until a merge changes that problem, whatever else is merged meanwhile.

Results are frozen, so what was read is kept and only what is new is read: every trial that ends leaves an event in the
transaction of its result, and events are numbered without holes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from django.db.models import Max, Q

from benchmarks.kernels.cells import CellTimes, cells
from research.models import Candidate, Event, Project, Result, Trial

CHUNK = 500
COLUMNS = (
    "pk", "trial__commit", "trial__arm", "trial__experiment_id", "metrics", "failure", "message", "machine_class",
)  # fmt: skip


class Measured(NamedTuple):
    """The newest measurement of a problem with some code."""

    result: int
    commit: str
    machine_class: str
    cells: Mapping[str, CellTimes]

    def __hash__(self) -> int:
        return self.result  # what is frozen is told by its number


class Outcome(NamedTuple):
    """How the newest trial of a candidate that changes a problem ended; `failure` is empty where it was measured."""

    result: int
    experiment: int
    failure: str
    message: str


class Change(NamedTuple):
    """Of one candidate: what it stands on, and the folders of problems that it changes."""

    parent: str
    problems: frozenset[str]


@dataclass(frozen=True)
class Reading:
    """All that was read of a project up to an event. Never changed: what comes later makes another one."""

    seq: int = 0
    changes: Mapping[str, Change] = field(default_factory=dict)  # by commit
    newest: Mapping[str, Mapping[str, Measured]] = field(default_factory=dict)  # problem -> code -> measurement
    references: Mapping[str, Measured] = field(default_factory=dict)  # problem -> its newest measurement with any code
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)  # by problem

    def code(self, commit: str, problem: str) -> str:
        """The commit that last changed a problem on the way to `commit`; the start where none did."""
        for at in self.line(commit):
            if (change := self.changes.get(at)) is None or problem in change.problems:
                return at
        return commit

    def codes(self, commit: str, problems: Iterable[str]) -> dict[str, str]:
        """The same for many problems at once."""
        found: dict[str, str] = {}
        at = commit
        for at in self.line(commit):
            for problem in self.changed(at):
                found.setdefault(problem, at)
        return {problem: found.get(problem, at) for problem in problems}

    def line(self, commit: str) -> Iterator[str]:
        """A commit and what it stands on, back to what is no candidate."""
        yield commit
        while change := self.changes.get(commit):
            commit = change.parent
            yield commit

    def changed(self, commit: str) -> frozenset[str]:
        change = self.changes.get(commit)
        return change.problems if change else frozenset()

    def measured(self, problem: str, code: str) -> Measured | None:
        return self.newest.get(problem, {}).get(code)

    def commits_of(self, problem: str) -> list[str]:
        """The candidates that change a problem."""
        return [commit for commit, change in self.changes.items() if problem in change.problems]


class _Kept:
    """The newest reading of a project in this process."""

    def __init__(self) -> None:
        self.reading = Reading()


@lru_cache(maxsize=4)  # 10,000 measured candidates of 16 workloads are about 30 MB
def _kept(project: str) -> _Kept:
    """By public id: numbers of rows may come again."""
    return _Kept()


def reading_of(project: Project) -> Reading:
    """Up to date, in two queries where nothing has happened."""
    kept = _kept(project.public_id)
    before, head = kept.reading, Event.objects.head()
    if before.seq and before.seq == head:
        return before
    kept.reading = _read_on(project, before, head)
    return kept.reading


def _read_on(project: Project, before: Reading, head: int) -> Reading:
    changes = dict(before.changes)
    results = Result.objects.filter(trial__project=project)
    if before.seq:
        events = Event.objects.after(before.seq).filter(project=project, experiment__isnull=False).order_by()
        news = set(events.values_list("experiment_id", "experiment__candidate_commit", "kind"))
        _learn(project, changes, {commit for _, commit, _ in news} - changes.keys())
        ended = {experiment for experiment, _, kind in news if kind == Event.Kind.TRIAL_ENDED}
        results = results.filter(trial__experiment__in=ended)
    else:
        _learn(project, changes, None)
    # Of one commit in one experiment the newest say all: a search of 44,000 results is read in half the time.
    alike = results.order_by().values("trial__experiment_id", "trial__commit", "trial__problems")
    last, scored = alike.annotate(last=Max("pk")), alike.annotate(last=Max("pk", filter=Q(score__isnull=False)))
    newest = Q(pk__in=last.values("last")) | Q(pk__in=scored.filter(last__isnull=False).values("last"))
    rows = Result.objects.filter(newest).order_by("pk").values_list(*COLUMNS)
    fresh = _Fresh(before, changes)
    for row in rows.iterator(chunk_size=CHUNK):
        fresh.take(*row)
    return Reading(head, changes, fresh.newest, fresh.references, fresh.outcomes)


def _learn(project: Project, known: dict[str, Change], commits: set[str] | None) -> None:
    """Add what these commits stand on, down to what is known or no candidate; None: all candidates."""
    candidates = Candidate.objects.filter(project=project)
    while commits is None or commits:
        found = candidates if commits is None else candidates.filter(commit__in=commits)
        rows = {
            commit: Change(parent, frozenset(str(file["path"]).partition("/")[0] for file in files or ()))
            for commit, parent, files in found.values_list("commit", "parent", "diff__files")
        }
        known.update(rows)
        commits = {change.parent for change in rows.values()} - known.keys() if commits is not None else set()


class _Fresh:
    """What a reading becomes with more results: what they say replaces what was there, in copies of what it touches."""

    def __init__(self, before: Reading, changes: Mapping[str, Change]) -> None:
        self.lines = Reading(changes=changes)
        self.newest: dict[str, Mapping[str, Measured]] = dict(before.newest)
        self.references = dict(before.references)
        self.outcomes = dict(before.outcomes)
        self._mine: dict[str, dict[str, Measured]] = {}

    def take(
        self, pk: int, commit: str, arm: str, experiment: int, metrics: Mapping[str, float], failure: str, message: str,
        machine_class: str,
    ) -> None:  # fmt: skip
        for problem, times in ({} if failure else cells(metrics)).items():
            mine = self._mine.get(problem)
            if mine is None:
                mine = self._mine[problem] = dict(self.newest.get(problem, {}))
                self.newest[problem] = mine
            code, row = self.lines.code(commit, problem), Measured(pk, commit, machine_class, times)
            if code not in mine or mine[code].result <= pk:
                mine[code] = row
            if problem not in self.references or self.references[problem].result <= pk:
                self.references[problem] = row
        if arm == Trial.Arm.CANDIDATE:
            for problem in self.lines.changed(commit):
                if problem not in self.outcomes or self.outcomes[problem].result <= pk:
                    self.outcomes[problem] = Outcome(pk, experiment, failure, message)
