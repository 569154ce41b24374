"""The kernel board of a project: every problem with its workloads, what main is worth on them, and what happens there.

A problem shows the newest measurement of main's code for it. Where there is none its reference stands in. What a thread
has confirmed and main does not have stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from urllib.parse import quote_plus, urlencode

from django.http import QueryDict
from django.urls import reverse

from research.models import Experiment, Lease, MergeRequest, Project, Trial, Verdict
from research.validation.records import VerdictKind
from research.views.kernels_problems import Known, known
from research.views.kernels_read import Measured, Reading, reading_of
from research.views.kernels_values import Headline, Show, Standing, gain, standing

SORTS = {"family": "family", "score": "lowest first", "gain": "largest gain", "recent": "newest gain"}
LONG_AGO = datetime.min.replace(tzinfo=UTC)
TURNED_DOWN = (MergeRequest.State.REJECTED, MergeRequest.State.RETURNED, MergeRequest.State.ROLLED_BACK)


@dataclass(frozen=True)
class Confirmed:
    """A gain that a verdict confirmed. `request` is the state of its merge request, empty without one."""

    commit: str
    experiment: str  # public id
    number: int
    thread: int
    thread_id: str
    at: datetime
    request: str
    request_id: str


@dataclass(frozen=True)
class State:
    """What happens to a problem: a kind of lab.STATES, its words, where it leads."""

    kind: str
    words: str
    href: str = ""


@dataclass(frozen=True)
class Row:
    known: Known
    now: Standing  # with main's code
    start: Standing
    best: tuple[Confirmed, Standing] | None  # of a thread, not on main
    improved: datetime | None
    states: tuple[State, ...]

    @property
    def name(self) -> str:
        return self.known.name


@dataclass(frozen=True)
class Group:
    name: str
    rows: tuple[Row, ...]

    @property
    def headline(self) -> Headline:
        return Headline([row.now for row in self.rows])


class KernelBoard:
    """Everything is looked up when a template asks; `asked` are the parameters of the address."""

    def __init__(self, project: Project, asked: QueryDict) -> None:
        self.project = project
        self.sort = asked.get("sort", "") if asked.get("sort") in SORTS else "family"
        self.chosen = asked.get("problem", "")[:200]
        self._show = asked.get("show", "")

    @cached_property
    def known(self) -> tuple[Known, ...]:
        return known(self.project)

    @cached_property
    def reading(self) -> Reading:
        return reading_of(self.project)

    @cached_property
    def show(self) -> Show:
        """As asked; else scores, by scaled anchors where there are any, and speed-ups where nothing has a bound."""
        if self._show in list(Show):
            return Show(self._show)
        if self.headline.is_scaled:
            return Show.SCALED
        return Show.SPEEDUP if self.headline.measured and not self.headline.is_scored else Show.SCORE

    # ---- what is measured ---------------------------------------------------------------------------------------

    @cached_property
    def main(self) -> dict[str, str]:
        """Problem -> the code that main has for it."""
        return self.reading.codes(self.project.champion, (row.name for row in self.known))

    @cached_property
    def standings(self) -> dict[str, Standing]:
        return {row.name: self.standing(row, self.main[row.name]) for row in self.known}

    def standing(self, row: Known, code: str) -> Standing:
        """A problem with some code."""
        mine = self.reading.measured(row.name, code)
        whole = mine is not None and mine.cells.keys() >= set(row.uuids)  # nothing is left for a reference to stand in
        return _standing(row, mine, None if whole else self.reading.references.get(row.name))

    @cached_property
    def headline(self) -> Headline:
        return Headline(list(self.standings.values()))

    @property
    def at_start(self) -> Headline:
        return Headline([row.start for row in self.rows])

    @property
    def untouched(self) -> int:
        """Problems that were measured with the start's code: what they differ from their reference by is noise."""
        start = self.project.start_commit
        return sum(self.main[name] == start and row.is_measured for name, row in self.standings.items())

    @cached_property
    def classes(self) -> list[str]:
        """The classes of machine that the shown times are of; times of different ones do not compare."""
        found = (self.reading.measured(name, code) for name, code in self.main.items())
        return sorted({row.machine_class for row in found if row})

    # ---- what happens -------------------------------------------------------------------------------------------

    @cached_property
    def confirmed(self) -> list[Confirmed]:
        """The newest last; those that a person turned down left out."""
        rows = Verdict.objects.filter(
            experiment__project=self.project, experiment__purpose=Experiment.Purpose.COMPARE,
            experiment__candidate__isnull=False, kind=str(VerdictKind.IMPROVED),
        )  # fmt: skip
        found = rows.order_by("created", "pk").values_list(
            "experiment__candidate_commit", "experiment__public_id", "experiment__number", "experiment__thread__number",
            "experiment__thread__public_id", "created", "merge_request__state", "merge_request__public_id",
        )  # fmt: skip
        rows_of = [Confirmed(*row[:6], row[6] or "", row[7] or "") for row in found]
        return [row for row in rows_of if row.request not in TURNED_DOWN]

    @cached_property
    def _improved(self) -> dict[str, datetime]:
        return {problem: row.at for row in self.confirmed for problem in self.reading.changed(row.commit)}

    @cached_property
    def _unmerged(self) -> dict[str, list[Confirmed]]:
        """By problem what is confirmed and not on main."""
        merged, found = set(self.reading.line(self.project.champion)), dict[str, list[Confirmed]]()
        for row in self.confirmed:
            if row.commit not in merged and row.request != MergeRequest.State.MERGED:
                for problem in self.reading.changed(row.commit):
                    found.setdefault(problem, []).append(row)
        return found

    @cached_property
    def states(self) -> dict[str, list[State]]:
        found: dict[str, list[State]] = {}

        def add(problems: Iterable[str], state: State) -> None:
            for problem in problems:
                if state not in found.setdefault(problem, []):
                    found[problem].append(state)

        running = Lease.objects.open().filter(trial__project=self.project, trial__arm=Trial.Arm.CANDIDATE)
        columns = ("trial__commit", "trial__problems", "trial__experiment__public_id", "trial__experiment__number")
        for commit, problems, id, number in running.order_by("pk").values_list(*columns):
            state = State("running", f"measuring #{number}", reverse("experiment", args=[id]))
            add(problems or self.reading.changed(commit), state)
        for problem, waiting in self._unmerged.items():
            if opened := [row for row in waiting if row.request == MergeRequest.State.OPEN]:
                address = reverse("merge-request", args=[opened[-1].request_id])
                add([problem], State("review", f"t-{opened[-1].thread} waits for review", address))
        for problem, state in self._failed():
            add([problem], state)
        return found

    def _failed(self) -> list[tuple[str, State]]:
        """Problems whose newest candidate gave wrong outputs or did not run."""
        failed = {problem: row for problem, row in self.reading.outcomes.items() if row.failure}
        wanted = {row.experiment for row in failed.values()}
        experiments = {
            pk: (id, number)
            for pk, id, number in (
                Experiment.objects.filter(pk__in=wanted).values_list("pk", "public_id", "number") if wanted else ()
            )
        }
        found = []
        for problem, row in failed.items():
            if row.experiment in experiments:
                id, number = experiments[row.experiment]
                word = "wrong" if row.failure == "bad_output" else row.failure.replace("_", " ")
                found.append((problem, State("failed", f"{word}: #{number}", reverse("experiment", args=[id]))))
        return found

    # ---- rows ---------------------------------------------------------------------------------------------------

    @cached_property
    def rows(self) -> list[Row]:
        begin = self.reading.codes(self.project.start_commit, self.standings)
        return [
            Row(
                row, self.standings[row.name], self.standing(row, begin[row.name]), self.best(row),
                self._improved.get(row.name), tuple(self.states.get(row.name, ())),
            )
            for row in self.known
        ]  # fmt: skip

    def best(self, row: Known) -> tuple[Confirmed, Standing] | None:
        """The fastest confirmed code that is not on main; None where none was measured."""
        found = []
        for confirmed in self._unmerged.get(row.name, ()):
            mine = self.standing(row, self.reading.code(confirmed.commit, row.name))
            if mine.is_measured:
                found.append((confirmed, mine))
        return max(found, key=lambda one: (one[1].speedup, one[0].number), default=None)

    @cached_property
    def groups(self) -> list[Group]:
        """By family, each by name; any other order is one group without a name."""
        if self.sort != "family":
            return [Group("", tuple(sorted(self.rows, key=self._order())))]
        names = sorted({row.known.group for row in self.rows})
        return [
            Group(name, tuple(sorted((r for r in self.rows if r.known.group == name), key=lambda row: row.name)))
            for name in names
        ]

    def _order(self) -> Callable[[Row], tuple[float, str]]:
        if self.sort == "recent":
            return lambda row: (-(row.improved or LONG_AGO).timestamp() if row.improved else 0.0, row.name)
        if self.sort == "gain":
            return lambda row: (-(gain(row.now, row.start, self.show) or 0.0), row.name)
        sign = -1 if self.show is Show.LATENCY else 1
        return lambda row: (sign * (row.now.value(self.show) or 0.0), row.name)

    # ---- addresses ----------------------------------------------------------------------------------------------

    def address(self, **changes: str) -> str:
        """This view with some of its parameters changed; an empty one is left out."""
        sort = "" if self.sort == "family" else self.sort
        query = {"show": self._show if self._show in list(Show) else "", "sort": sort, "problem": self.chosen} | changes
        words = urlencode({name: value for name, value in query.items() if value})
        return f"{reverse('kernels', args=[self.project.name])}{'?' if words else ''}{words}"

    @cached_property
    def _without_problem(self) -> str:
        address = self.address(problem="")
        return f"{address}&problem=" if "?" in address else f"{address}?problem="

    def toward(self, problem: str) -> str:
        """This view with that problem closer."""
        return self._without_problem + quote_plus(problem)

    @property
    def here(self) -> str:
        """For refetching: `&part=` can follow."""
        address = self.address()
        return address if "?" in address else f"{address}?"

    @property
    def shows(self) -> list[tuple[str, bool, str]]:
        """(words, is it shown?, address)."""
        words = {Show.SCORE: "SOL score", Show.SPEEDUP: "speed-up", Show.LATENCY: "latency, µs"}
        if self.headline.is_scaled:
            words = {Show.SCALED: "SOL score, scaled anchors"} | words | {Show.SCORE: "measured anchors"}
        return [(word, show is self.show, self.address(show=str(show))) for show, word in words.items()]

    @property
    def sorts(self) -> list[tuple[str, bool, str]]:
        return [
            (word, name == self.sort, self.address(sort="" if name == "family" else name))
            for name, word in SORTS.items()
        ]


@lru_cache(maxsize=2048)  # about 5 kB each with 16 workloads
def _standing(row: Known, mine: Measured | None, newest: Measured | None) -> Standing:
    """Kept: of 235 problems a trial changes one."""
    return standing(row.uuids, mine.cells if mine else None, newest.cells if newest else {})
