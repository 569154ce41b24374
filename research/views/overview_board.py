"""What the overview shows: what needs a person, how far each project is, what every thread does, who measures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from django.contrib.auth.models import AbstractUser
from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString

from research.loop import noise
from research.models import (
    Event,
    Lease,
    Lesson,
    Machine,
    Membership,
    MergeRequest,
    Project,
    Role,
    Thread,
)
from research.models.machine import SILENT_AFTER
from research.templatetags.lab import percent, share
from research.views.frontier import Frontier, drawing, frontier_of, key_of
from research.views.gain import gain_of
from research.views.now import last_line
from research.views.spent import spent_of
from research.views.wall import ThreadRow, thread_rows

WINDOW = timedelta(minutes=10)  # of which a machine's busy share is told
FORGOTTEN = timedelta(days=1)  # a machine that was silent for longer has left
MOST = 8  # lines of one kind that are worth a person's look at once
FRONTIERS = 4
WALL = 60


@dataclass(frozen=True)
class Need:
    """Something that waits for a person: a glyph with a word, what, and where to go."""

    state: str  # of templatetags.lab.STATES
    word: str
    title: str
    detail: str
    href: str
    since: datetime | None = None


@dataclass(frozen=True)
class Panel:
    """One project's frontier, small."""

    project: Project
    frontier: Frontier
    svg: SafeString
    noise: tuple[int, int]


@dataclass(frozen=True)
class MachineRow:
    machine: Machine
    is_silent: bool
    running: int
    busy: float  # share of its slots over the window

    @property
    def state(self) -> tuple[str, str]:
        if self.is_silent:
            return "lost", "silent"
        return ("running", f"{self.running} of {self.machine.slots} busy") if self.running else ("waiting", "idle")


class OverviewBoard:
    def __init__(self, user: AbstractUser) -> None:
        self.user, self.now = user, timezone.now()

    @cached_property
    def projects(self) -> list[Project]:
        """Those that this person may see; the searching ones first, then the newest."""
        rows = Membership.projects_of(self.user).order_by("-pk")
        return sorted(rows, key=lambda project: project.state == Project.State.FINISHED)

    @cached_property
    def live(self) -> list[Project]:
        return [project for project in self.projects if project.state != Project.State.FINISHED]

    @cached_property
    def may_start(self) -> bool:
        return Membership.role_of(self.user, None) >= Role.MEMBER

    @property
    def line(self) -> str:
        """The lab in one line."""
        searching = [row for row in self.live if row.state == Project.State.ACTIVE]
        if not self.projects:
            return "Nothing searches yet."
        if not searching:
            return "No project is searching now."
        threads = Thread.objects.filter(project__in=searching, state=Thread.State.ACTIVE).count()
        heard = Machine.objects.living().count()
        words = [_count(threads, "thread") + (" searches" if threads == 1 else " search")]
        words[0] += f" in {_count(len(searching), 'project')}"
        words.append(f"{_count(heard, 'machine')} {'measures' if heard == 1 else 'measure'}" if heard else
                     "no machine measures")  # fmt: skip
        return "; ".join(words) + "."

    @property
    def next(self) -> str:
        """What is likely to need a person next, for the empty list."""
        confirming = sum(row.now.stage == "confirm" for row in self.wall)
        if confirming:
            return f"{_count(confirming, 'gain')} being confirmed now; a merge request may follow."
        if self.wall:
            return "A gain that fresh pairs confirm comes here, and whatever stops by itself."
        return "Merge requests, stopped threads and spent budgets come here."

    # Needs you

    @cached_property
    def needs(self) -> list[Need]:
        return [*self._requests(), *self._halted(), *self._silent(), *self._stopped(), *self._budgets()]

    def _requests(self) -> Iterator[Need]:
        rows = MergeRequest.objects.open().filter(project__in=self.live or self.projects)
        requests = list(rows.select_related("verdict", "project", "thread", "candidate__idea").order_by("-pk"))
        waiting = [one for one in requests if one.waits_for_a_person]
        for request in waiting[:MOST]:
            gain = gain_of(request.verdict)
            size = f"{percent(gain.mean)}{_error(gain.half)} over {gain.pairs} pairs" if gain else ""
            where = f"{request.project.name}, thread {request.thread.number}"
            href = reverse("merge-request", args=[request.public_id])
            yield Need("open", "review", request.candidate.idea.name, f"{size} · {where}", href, request.created)
        if len(waiting) > MOST:
            yield Need("open", "review", f"{len(waiting) - MOST} more requests", "", reverse("review"))

    def _halted(self) -> Iterator[Need]:
        halted = Thread.objects.filter(project__in=self.live, state=Thread.State.HALTED).select_related("project")
        for thread in halted.order_by("-pk")[:MOST]:
            href = reverse("thread", args=[thread.public_id])
            yield Need(
                "halted", "halted", f"{thread.project.name}, thread {thread.number}", last_line(thread.note), href
            )

    def _silent(self) -> Iterator[Need]:
        href = reverse("machines")
        for row in self.machines:
            if row.is_silent:
                yield Need("lost", "silent", f"Machine {row.machine.name}", "nothing was heard of it", href,
                           row.machine.seen)  # fmt: skip
        if not self.machines and self.live:
            command = "manage.py attach --name NAME --devices cpu"
            yield Need("lost", "machine", "No machine is attached", f"on a machine with the lab: {command}", href)

    def _stopped(self) -> Iterator[Need]:
        for project in self.live:
            if project.state != Project.State.ACTIVE:
                yield Need(project.state, project.state, project.name, project.state_reason or "by a person",
                           reverse("project", args=[project.name]))  # fmt: skip

    def _budgets(self) -> Iterator[Need]:
        for project in self.live:
            if project.state != Project.State.ACTIVE:
                continue
            spent = spent_of(project).all if project.max_trials or project.max_device_seconds else None
            parts = {
                "trials": (spent.trials if spent else 0, project.max_trials),
                "device time": (spent.seconds if spent else 0, project.max_device_seconds),
                "hours of search": (project.wall_seconds, project.max_wall_seconds),
            }
            for name, (used, limit) in parts.items():
                if limit and used / limit > 0.8:
                    yield Need("exhausted", "budget", project.name, f"{share(used / limit)} of its {name} is spent",
                               reverse("project", args=[project.name]))  # fmt: skip

    # What goes on

    @cached_property
    def panels(self) -> list[Panel]:
        found = []
        height = 190 if len(self.projects) > 1 else 260
        for project in self.projects[:FRONTIERS]:
            key = key_of(project)
            seen = frontier_of(project, key)
            progress = noise.progress(project) if not seen.verdicts else (0, 0)
            found.append(Panel(project, seen, drawing(key, False, height), progress))
        return found

    @property
    def frontiers_key(self) -> str:
        """Changes with what the frontiers show: a browser that has it is not sent it again."""
        parts = [(panel.project.pk, panel.project.state, key_of(panel.project), panel.noise) for panel in self.panels]
        return hashlib.sha256(repr((parts, self.news and self.news.pk)).encode()).hexdigest()[:16]

    @cached_property
    def wall(self) -> list[ThreadRow]:
        threads = Thread.objects.filter(project__in=self.live).exclude(state=Thread.State.FINISHED)
        return thread_rows(self.live, threads.order_by("-project", "number")[:WALL])

    @cached_property
    def machines(self) -> list[MachineRow]:
        """Machines that were heard of in the last day."""
        rows = list(Machine.objects.filter(seen__gt=self.now - FORGOTTEN).order_by("name"))
        begin = self.now - WINDOW
        busy: dict[int, float] = {}
        running: dict[int, int] = {}
        for machine, granted, released in Lease.objects.since(begin).values_list("machine_id", "granted", "released"):
            seconds = ((released or self.now) - max(granted, begin)).total_seconds()
            busy[machine] = busy.get(machine, 0.0) + seconds
            running[machine] = running.get(machine, 0) + (released is None)
        return [
            MachineRow(
                row, self.now - (row.seen or self.now) > SILENT_AFTER, running.get(row.pk, 0),
                min(1.0, busy.get(row.pk, 0.0) / (WINDOW.total_seconds() * max(1, row.slots))),
            )
            for row in rows
        ]  # fmt: skip

    @cached_property
    def lessons(self) -> QuerySet[Lesson]:
        rows = Lesson.objects.filter(project__in=self.projects, retracted=False)
        return rows.select_related("experiment__candidate__idea").order_by("-pk")[:5]

    @cached_property
    def news(self) -> Event | None:
        """What the lab said last about itself, such as fetching the text; shown while there is no project."""
        return Event.objects.filter(kind=Event.Kind.NOTE, project=None).order_by("-seq").first()


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _error(half: float | None) -> str:
    return f" ± {100 * half:.1f} %" if half is not None else ""
