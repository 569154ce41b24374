"""Since you were away: what happened in each project between two visits of the overview, in numbers with links.

Windows of two absences never overlap, so nothing is told twice: a window ends where the page was last drawn, and the
next one begins there.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from django.contrib.auth.models import AbstractUser
from django.db.models import Count, Max, QuerySet, Sum
from django.urls import reverse

from research.models import AuditEntry, Event, Machine, MergeRequest, NotMergeable, Project, Result, Thread, Verdict
from research.models.machine import SILENT_AFTER
from research.templatetags.lab import duration, percent, share

AWAY = timedelta(minutes=30)


@dataclass(frozen=True)
class Line:
    """One number of a project, in words; `tone` is a class of lab.css."""

    text: str
    href: str
    tone: str = ""


@dataclass
class ProjectDigest:
    project: Project
    lines: list[Line] = field(default_factory=list)


@dataclass(frozen=True)
class Digest:
    """What happened in these projects since a person left, as that person may see it."""

    user: AbstractUser
    projects: list[Project]
    since: datetime
    back: datetime
    now: datetime

    @property
    def away(self) -> float:
        """Seconds."""
        return (self.back - self.since).total_seconds()

    @property
    def is_empty(self) -> bool:
        return not self.rows and not self.lost

    @cached_property
    def rows(self) -> list[ProjectDigest]:
        """Projects in which something happened."""
        rows = [ProjectDigest(project, self._lines(project)) for project in self.projects]
        return [row for row in rows if row.lines]

    @cached_property
    def lost(self) -> list[Machine]:
        """Machines that were there after this person had left, and are silent now."""
        return list(Machine.objects.filter(seen__gt=self.since, seen__lt=self.now - SILENT_AFTER).order_by("name"))

    # Read once for all projects

    @cached_property
    def _verdicts(self) -> dict[int, dict[str, tuple[int, float | None]]]:
        rows = Verdict.objects.filter(experiment__project__in=self.projects, created__gt=self.since).order_by()
        found: dict[int, dict[str, tuple[int, float | None]]] = defaultdict(dict)
        for project, kind, count, best in rows.values_list("experiment__project", "kind").annotate(
            Count("pk"), Max("relative")
        ):
            found[project][kind] = count, best
        return found

    @cached_property
    def _events(self) -> dict[int, dict[str, int]]:
        rows = Event.objects.filter(project__in=self.projects, at__gt=self.since).notable().order_by()
        found: dict[int, dict[str, int]] = defaultdict(dict)
        for project, kind, count in rows.values_list("project", "kind").annotate(Count("pk")):
            found[project][kind] = count
        return found

    @cached_property
    def _acts(self) -> dict[int | None, int]:
        """How often others acted."""
        rows = AuditEntry.objects.filter(project__in=self.projects, at__gt=self.since).exclude(actor=self.user.pk)
        return dict(rows.order_by().values_list("project").annotate(Count("pk")))

    @cached_property
    def _spent(self) -> dict[int, tuple[int, float]]:
        rows = Result.objects.filter(trial__project__in=self.projects, created__gt=self.since).order_by()
        sums = rows.values_list("trial__project").annotate(Count("pk"), Sum("device_seconds"))
        return {project: (trials, seconds) for project, trials, seconds in sums}

    @cached_property
    def _requests(self) -> dict[int, list[MergeRequest]]:
        """Those that were opened meanwhile and still wait."""
        rows = MergeRequest.objects.open().filter(project__in=self.projects, created__gt=self.since)
        found: dict[int, list[MergeRequest]] = defaultdict(list)
        for request in rows.select_related("project", "thread").order_by("pk"):
            found[request.project_id].append(request)
        return found

    def _halted(self, project: Project) -> QuerySet[Thread]:
        return project.threads.filter(state=Thread.State.HALTED).order_by("number")

    # In words

    def _lines(self, project: Project) -> list[Line]:
        found = [*self._found(project), *self._decided(project), *self._waiting(project), *self._stopped(project)]
        trials, seconds = self._spent.get(project.pk, (0, 0.0))
        if trials:
            of = f", {share(seconds / limit)} of its budget" if (limit := project.max_device_seconds) else ""
            text = f"{duration(seconds)} of device time spent in {_count(trials, 'trial')}{of}"
            found.append(Line(text, reverse("project", args=[project.name]) + "#budget-title"))
        if acts := self._acts.get(project.pk, 0):
            since = self.since.strftime("%Y-%m-%dT%H:%M:%S")
            href = f"{reverse('project-audit', args=[project.name])}?since={since}"
            found.append(Line(f"{_count(acts, 'act')} of others", href))
        return found

    def _found(self, project: Project) -> list[Line]:
        kinds = self._verdicts.get(project.pk, {})
        verdicts = sum(count for count, _ in kinds.values())
        improved, best = kinds.get("improved", (0, None))
        invalid, _ = kinds.get("invalid", (0, None))
        lessons = f"{reverse('lessons')}?project={project.name}"
        lines = [Line(_count(verdicts, "verdict"), lessons)] if verdicts else []
        if improved:
            lines.append(Line(f"{improved} improved, at best {percent(best)}", f"{lessons}&kind=gain", "good"))
        if invalid:
            lines.append(Line(f"{invalid} failed or caught as invalid", lessons, "bad"))
        return lines

    def _decided(self, project: Project) -> list[Line]:
        events, review = self._events.get(project.pk, {}), reverse("review")
        words = {
            Event.Kind.MERGED: ("merged into main", "good"),
            Event.Kind.ROLLED_BACK: ("rolled back", "bad"),
            Event.Kind.RETURNED: ("returned", "warn"),
            Event.Kind.REJECTED: ("rejected", "bad"),
            Event.Kind.COMMENT: ("said in comments", ""),
        }
        found = [(events[kind], *words[kind]) for kind in words if events.get(kind)]
        return [Line(f"{count} {text}", review, tone) for count, text, tone in found]

    def _waiting(self, project: Project) -> list[Line]:
        requests = self._requests.get(project.pk, [])
        mine = [request for request in requests if self._may_approve(request)]
        if not requests:
            return []
        href = reverse("merge-request", args=[mine[0].public_id]) if len(mine) == 1 else reverse("review")
        if not mine:
            return [Line(f"{_count(len(requests), 'new request')} for somebody else to approve", href)]
        return [
            Line(f"{_count(len(mine), 'new request')} {'waits' if len(mine) == 1 else 'wait'} for you", href, "live")
        ]

    def _may_approve(self, request: MergeRequest) -> bool:
        try:
            request.may_approve(self.user)  # type: ignore[arg-type]
        except NotMergeable:
            return False
        return True

    def _stopped(self, project: Project) -> list[Line]:
        if not self._events.get(project.pk, {}).get(Event.Kind.HALTED):
            return []
        return [
            Line(f"thread {thread.number} halted", reverse("thread", args=[thread.public_id]), "bad")
            for thread in self._halted(project)
        ]


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
