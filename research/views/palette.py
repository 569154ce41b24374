"""What the palette finds: rows that this person may see, by number or by words. At most MOST, each kind in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import islice
from operator import and_
from typing import NamedTuple

from django.db.models import Q, QuerySet
from django.http import HttpRequest, JsonResponse
from django.urls import reverse

from research.models import Experiment, Lesson, Machine, Membership, MergeRequest, Project, Thread

MOST, OF_A_KIND = 20, 6


class Found(NamedTuple):
    """One line of the palette; `text` is data, never markup."""

    kind: str
    text: str
    hint: str
    url: str


class Question(NamedTuple):
    """What was typed, and which projects may answer."""

    words: list[str]
    projects: QuerySet[Project]

    def matches(self, *fields: str) -> Q:
        """Every word stands in one of the fields; nothing typed matches all."""
        return reduce(and_, (_any_of(fields, word) for word in self.words), Q())

    @property
    def number(self) -> int | None:
        """`17`, `#17` or `e17`: the number of an experiment."""
        digits = self.words[0].lstrip("#eE") if len(self.words) == 1 else ""
        return int(digits) if digits.isdecimal() and len(digits) < 9 else None


def search(request: HttpRequest) -> JsonResponse:
    projects = Membership.projects_of(request.user)  # type: ignore[arg-type]  # LoginRequiredMiddleware
    question = Question(request.GET.get("q", "").replace("\0", "")[:200].split()[:8], projects)
    kinds = ALL if question.words else AT_REST
    found = [line._asdict() for of_kind in kinds for line in islice(of_kind(question), OF_A_KIND)]
    return JsonResponse({"items": found[:MOST]}, headers={"Cache-Control": "no-store"})


def _any_of(fields: tuple[str, ...], word: str) -> Q:
    either = Q()
    for field in fields:
        either |= Q(**{f"{field}__icontains": word})
    return either


def _requests(asked: Question) -> Iterator[Found]:
    rows = MergeRequest.objects.open().filter(project__in=asked.projects)
    rows = rows.filter(asked.matches("candidate__idea__hypothesis", "commit", "project__name"))
    for row in rows.select_related("candidate__idea", "project").order_by("-pk")[:OF_A_KIND]:
        yield Found(
            "review", row.candidate.idea.hypothesis, row.project.name, reverse("merge-request", args=[row.public_id])
        )


def _projects(asked: Question) -> Iterator[Found]:
    for row in asked.projects.filter(asked.matches("name", "question")).order_by("-pk")[:OF_A_KIND]:
        yield Found("project", row.name, row.get_state_display(), reverse("project", args=[row.name]))


def _threads(asked: Question) -> Iterator[Found]:
    rows = Thread.objects.filter(project__in=asked.projects).select_related("project")
    words = [word for word in asked.words if word.lower() != "thread"]
    by_words = Question(words, asked.projects).matches("project__name", "researcher")
    if len(words) == 1 and words[0].isdecimal() and len(words) < len(asked.words):  # `thread 2`
        by_words = Q(number=int(words[0][:9]))
    for row in rows.filter(by_words).order_by("-project", "number")[:OF_A_KIND]:
        yield Found("thread", f"thread {row.number} of {row.project.name}", row.get_state_display(),
                    reverse("thread", args=[row.public_id]))  # fmt: skip


def _experiments(asked: Question) -> Iterator[Found]:
    rows = Experiment.objects.filter(project__in=asked.projects).select_related("project", "candidate__idea", "verdict")
    fitting = asked.matches("candidate__idea__hypothesis", "candidate_commit", "public_id")
    if asked.number is not None:
        fitting |= Q(number=asked.number)
    for row in rows.filter(fitting).order_by("-pk")[:OF_A_KIND]:
        verdict = getattr(row, "verdict", None)
        text = row.candidate.idea.hypothesis if row.candidate else row.get_purpose_display()
        said = (verdict.kind if verdict else row.state).replace("_", " ")
        yield Found("experiment", f"{row.number}: {text}", said, reverse("experiment", args=[row.public_id]))


def _lessons(asked: Question) -> Iterator[Found]:
    rows = Lesson.objects.filter(asked.matches("text"), project__in=asked.projects).order_by("-pk")
    for row in rows[:OF_A_KIND]:
        yield Found("lesson", row.text, row.get_kind_display().lower(), f"{reverse('lessons')}?id={row.pk}")


def _machines(asked: Question) -> Iterator[Found]:
    for row in Machine.objects.filter(asked.matches("name", "machine_class")).order_by("name")[:OF_A_KIND]:
        yield Found("machine", row.name, row.machine_class, f"{reverse('machines')}#machine-{row.public_id}")


AT_REST: tuple[Callable[[Question], Iterator[Found]], ...] = (_requests, _projects, _threads)
ALL = (_requests, _projects, _threads, _experiments, _lessons, _machines)
