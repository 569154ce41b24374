"""What the thread page shows, gathered part by part: a fragment asks for what it needs and no more."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from django.db.models import Count, Q, Sum

from research.loop.memory import recipe_of
from research.models import Candidate, Event, Experiment, Idea, Result, Thread, Trial, Verdict
from research.repository import Change, Repository
from research.validation.records import VerdictKind
from research.views.curves import Curves, curves_of
from research.views.now import Now, last_line, now_line
from research.views.pairs import Pairs, pairs_of
from research.views.rulewords import what_next

EXPERIMENTS = 12  # on one page of the list
EVENTS = 40
LINES = 4  # trials drawn: what is new; the experiment page draws all
OFFERED = 40  # experiments in the selector


@dataclass(frozen=True)
class Row:
    """One experiment in a list."""

    experiment: Experiment
    pairs: Pairs
    verdict: Verdict | None
    isolation: int | None = None  # the lowest level among its results

    @property
    def idea(self) -> Idea | None:
        return self.experiment.candidate.idea if self.experiment.candidate else None


@dataclass(frozen=True)
class Ingredient:
    """One technique of the thread's recipe."""

    name: str
    title: str
    tunables: str


@dataclass(frozen=True)
class Cost:
    """What the thread has spent, and on how many confirmed gains."""

    trials: int
    failed: int
    seconds: float
    experiments: int
    gains: int

    @property
    def per_gain(self) -> float | None:
        return self.seconds / self.gains if self.gains else None


@dataclass(frozen=True)
class Steering:
    """What a person asked for, and whether the researcher has answered."""

    focus: list[str]
    forbid: list[str]
    note: str
    given: Event | None
    obeyed: Event | None
    fresh: bool
    said: list[dict[str, str]]
    wishes: list[dict[str, str]]

    @property
    def is_set(self) -> bool:
        return bool(self.focus or self.forbid or self.note)


def rows_of(experiments: list[Experiment]) -> list[Row]:
    """Rows of a list, in three queries; experiments come with `candidate__idea` and `verdict` selected."""
    pairs = pairs_of(experiments)
    levels = Experiment.objects.filter(pk__in=[row.pk for row in experiments]).isolation()
    return [Row(row, pairs[row.pk], getattr(row, "verdict", None), levels.get(row.pk)) for row in experiments]


@lru_cache(maxsize=64)
def diff_between(repository: Path, base: str, head: str) -> Change:
    """Commits never change, so neither does this."""
    return Repository(repository).diff(base, head)


class ThreadBoard:
    """The parts of one thread's page. Everything is looked up when a template asks."""

    def __init__(self, thread: Thread, chosen: str = "", metrics: list[str] | None = None) -> None:
        self.thread = thread
        self.chosen = chosen
        self.chosen_metrics = metrics or []

    @cached_property
    def now(self) -> Now:
        return now_line(self.thread)

    @cached_property
    def next_step(self) -> str:
        running = self.now.experiment
        return what_next(running, pairs_of([running])[running.pk]) if running else ""

    @cached_property
    def ahead(self) -> Idea | None:
        """The idea that is ready for when this one is judged."""
        ready = self.thread.ideas.ahead().order_by("number")
        return ready.exclude(pk=self.now.idea.pk).first() if self.now.idea else ready.first()

    @cached_property
    def waiting(self) -> Candidate | None:
        return self.thread.waiting_candidate

    @property
    def failure(self) -> str:
        """The last line of the traceback that halted the thread."""
        return last_line(self.thread.note)

    @cached_property
    def experiment(self) -> Experiment | None:
        """The one whose curves are drawn: as chosen, else what runs, else the newest."""
        mine = self.thread.experiments.select_related("candidate__idea", "project")
        if self.chosen:
            return mine.filter(public_id=self.chosen).first()
        return mine.running().order_by("-pk").first() or mine.order_by("-pk").first()

    @cached_property
    def curves(self) -> Curves | None:
        return curves_of(self.experiment, self.chosen_metrics, LINES) if self.experiment else None

    @cached_property
    def offered(self) -> list[Experiment]:
        rows = self.thread.experiments.select_related("candidate__idea").order_by("-number")
        return list(rows[:OFFERED])

    def experiments(self, below: int | None = None) -> tuple[list[Row], int | None]:
        """One page of the list, newest first, and the number that the next page begins below."""
        rows = self.thread.experiments.select_related("candidate__idea", "verdict").order_by("-number")
        if below is not None:
            rows = rows.filter(number__lt=below)
        found = list(rows[: EXPERIMENTS + 1])
        more = found[EXPERIMENTS - 1].number if len(found) > EXPERIMENTS else None
        return rows_of(found[:EXPERIMENTS]), more

    def events(self, everything: bool = False, below: int | None = None) -> tuple[list[Event], int | None]:
        """One page of the stream, newest first, and the sequence number that the next page begins below."""
        rows = Event.objects.filter(thread=self.thread).select_related("experiment", "actor")
        rows = rows if everything else rows.notable()
        if below is not None:
            rows = rows.filter(seq__lt=below)
        found = list(rows.order_by("-seq")[: EVENTS + 1])
        more = found[EVENTS - 1].seq if len(found) > EVENTS else None
        return found[:EVENTS], more

    @cached_property
    def diff(self) -> Change | None:
        project = self.thread.project
        if not project.start_commit or self.thread.head == project.start_commit:
            return None
        return diff_between(project.repository_path, project.start_commit, self.thread.head)

    @cached_property
    def recipe(self) -> list[Ingredient]:
        described = self.thread.project.described
        return [
            Ingredient(
                step.technique,
                described.get(step.technique, {}).get("title", step.technique),
                ", ".join(f"{name} {value}" for name, value in step.tunables.items()),
            )
            for step in recipe_of(self.thread.project, self.thread.head)
        ]

    @cached_property
    def cost(self) -> Cost:
        results = Result.objects.filter(trial__experiment__thread=self.thread).aggregate(
            trials=Count("pk"), failed=Count("pk", filter=~Q(failure="")), seconds=Sum("device_seconds")
        )
        experiments = self.thread.experiments.aggregate(
            count=Count("pk"),
            gains=Count("pk", filter=Q(verdict__kind=str(VerdictKind.IMPROVED), purpose=Experiment.Purpose.COMPARE)),
        )
        return Cost(
            results["trials"], results["failed"], results["seconds"] or 0.0, experiments["count"], experiments["gains"]
        )

    @cached_property
    def steering(self) -> Steering:
        directives = self.thread.directives
        mine = Event.objects.filter(thread=self.thread).select_related("actor")
        given = mine.filter(kind=Event.Kind.STEERED).order_by("-seq").first()
        answers = mine.filter(kind=Event.Kind.OBEYED, seq__gt=given.seq) if given else mine.none()
        return Steering(
            list(directives.get("focus", [])), list(directives.get("forbid", [])), str(directives.get("note", "")),
            given, answers.order_by("seq").first(), bool(directives.get("fresh", False)),
            list(directives.get("say", [])), list(directives.get("try_this", [])),
        )  # fmt: skip

    @property
    def trials_running(self) -> bool:
        return Trial.objects.filter(experiment__thread=self.thread, state=Trial.State.LEASED).exists()
