"""Lessons: what verdicts and people taught, newest first; retract one that misleads, or let it count again."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import AbstractUser
from django.core.paginator import Page, Paginator
from django.db.models import Q, TextField
from django.db.models.functions import Cast
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from research.models import Lesson, Membership, NotMergeable, Project, Role
from research.views.pages import checked, go, render_page

A_PAGE, TECHNIQUES_OF = 50, 2_000  # lessons on a page; the newest lessons whose techniques can be chosen
EXPLAINED = {
    Lesson.Kind.GAIN: "a confirmed gain",
    Lesson.Kind.NEAR_MISS: "probably a gain, too small to confirm",
    Lesson.Kind.NO_GAIN: "no gain worth having was seen",
    Lesson.Kind.HARM: "confirmed to be worse",
    Lesson.Kind.FAILURE: "the code failed",
    Lesson.Kind.INVALID: "the result did not count",
    Lesson.Kind.REJECTED: "a person rejected it: not proposed again",
    Lesson.Kind.CONFLICT: "two changes that cannot stand together",
}
TONES = {
    Lesson.Kind.GAIN: "good", Lesson.Kind.NEAR_MISS: "warn", Lesson.Kind.NO_GAIN: "", Lesson.Kind.HARM: "bad",
    Lesson.Kind.FAILURE: "bad", Lesson.Kind.INVALID: "bad", Lesson.Kind.REJECTED: "bad", Lesson.Kind.CONFLICT: "warn",
}  # fmt: skip


def page(request: HttpRequest) -> HttpResponse:
    return render_page(request, "lessons", {"board": LessonsBoard(request.user, request.GET)})  # type: ignore[arg-type]


@require_POST
def decide(request: HttpRequest, pk: int) -> HttpResponse:
    """Retract or restore one lesson; back to the list as it was."""
    rows = Lesson.objects.filter(pk=pk).select_related("project")
    lesson = checked(request, rows)
    checked(request, rows, lesson.keeper)
    back = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(back, {request.get_host()}, request.is_secure()):
        back = reverse("lessons")
    acts = {
        "retract": (lesson.retract, "The lesson counts for nothing now"),
        "restore": (lesson.restore, "The lesson counts again"),
    }
    if request.POST.get("act") not in acts:
        return redirect(back)
    act, said = acts[request.POST["act"]]
    try:
        act(request.user)  # type: ignore[arg-type]
    except NotMergeable as refusal:
        return go(request, back, problem=str(refusal))
    return go(request, back, said)


class LessonsBoard:
    """The filters of the address, and the lessons that pass them."""

    def __init__(self, user: AbstractUser, asked: QueryDict) -> None:
        self.user = user
        self.asked = {
            name: asked.get(name, "").replace("\0", "").strip()[:200]
            for name in ("q", "project", "kind", "technique", "id")
        }
        self.number = asked.get("page", "1")

    @cached_property
    def projects(self) -> list[Project]:
        return list(Membership.projects_of(self.user).order_by("-pk"))

    @property
    def kinds(self) -> list[tuple[str, str]]:
        return [(kind.value, f"{str(kind.label).lower()}: {EXPLAINED[kind]}") for kind in Lesson.Kind]

    @cached_property
    def techniques(self) -> list[str]:
        """Names that can be chosen."""
        rows = Lesson.objects.filter(project__in=self.projects).order_by("-pk").values_list("techniques", flat=True)
        return sorted({str(step["technique"]) for row in rows[:TECHNIQUES_OF] for step in row})

    @cached_property
    def page(self) -> Page[Any]:
        rows = Lesson.objects.filter(self._fitting(), project__in=self.projects).annotate(
            technique_text=Cast("techniques", TextField())
        )
        if name := self.asked["technique"]:  # portable: SQLite cannot look into a list
            rows = rows.filter(technique_text__contains=f'"technique": "{name}"')
        rows = rows.select_related("project", "thread", "experiment__candidate__idea", "request").order_by("-pk")
        return Paginator(rows, A_PAGE).get_page(self.number)

    @cached_property
    def rows(self) -> list[LessonRow]:
        return [LessonRow(lesson, self) for lesson in self.page]

    @cached_property
    def is_filtered(self) -> bool:
        return any(self.asked.values())

    @property
    def query(self) -> str:
        """The filters as an address, without the page."""
        return urlencode({name: value for name, value in self.asked.items() if value})

    @property
    def address(self) -> str:
        return f"{reverse('lessons')}?{urlencode({'page': self.page.number})}&{self.query}".rstrip("&")

    @cached_property
    def roles(self) -> dict[int | None, int]:
        """This person's role by project; None: in all of them."""
        if self.user.is_superuser:
            return {None: Role.ADMIN}
        return dict(Membership.objects.filter(user=self.user.pk).values_list("project_id", "role"))

    def may_change(self, lesson: Lesson) -> bool:
        needed = lesson.keeper
        return max(self.roles.get(None, 0), self.roles.get(lesson.project_id, 0)) >= needed

    def _fitting(self) -> Q:
        fitting = Q()
        for word in self.asked["q"].split()[:8]:
            fitting &= Q(text__icontains=word)
        if self.asked["project"]:
            fitting &= Q(project__name=self.asked["project"])
        if self.asked["kind"]:
            fitting &= Q(kind=self.asked["kind"])
        if self.asked["id"].isdecimal():
            fitting &= Q(pk=int(self.asked["id"][:15]))
        return fitting


class LessonRow:
    def __init__(self, lesson: Lesson, board: LessonsBoard) -> None:
        self.lesson = lesson
        self.may_change = board.may_change(lesson)

    @property
    def tone(self) -> str:
        return TONES.get(Lesson.Kind(self.lesson.kind), "")

    @property
    def is_dead_end(self) -> bool:
        return self.lesson.kind == Lesson.Kind.REJECTED

    @property
    def explained(self) -> str:
        return EXPLAINED[Lesson.Kind(self.lesson.kind)]

    @property
    def steps(self) -> list[tuple[str, str]]:
        """(technique, tunables in words)."""
        return [
            (str(step["technique"]), ", ".join(f"{name} {value}" for name, value in step.get("tunables", {}).items()))
            for step in self.lesson.techniques
        ]
