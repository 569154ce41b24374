"""Lessons: what verdicts and people taught, newest first; retract one that misleads, or let it count again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import AbstractUser
from django.core.paginator import Page, Paginator
from django.db.models import Case, FloatField, Q, Value, When
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from research.models import Lesson, LessonQuerySet, Membership, NotMergeable, Project, Role
from research.models.lesson_words import ranks
from research.views.pages import checked, go, render_page

A_PAGE, CHOICES_OF, BEST_OF = 50, 2_000, 300  # on a page; newest ones that can be chosen by; ranked by their fit
STATES = {
    "reopened": ("worth another look", Q(reopened__isnull=False)),
    "discard": ("held against a proposal", Q(reopened=None, retracted=False, binding=True) & ~Q(assumption={})),
    "superseded": ("superseded or contradicted", Q(superseded_by__isnull=False)),
    "imported": ("imported", ~Q(imported_from="")),
    "retracted": ("retracted", Q(retracted=True)),
}
EXPLAINED = {
    Lesson.Kind.GAIN: "a confirmed gain",
    Lesson.Kind.NEAR_MISS: "probably a gain, too small to confirm",
    Lesson.Kind.NO_GAIN: "no gain worth having was seen",
    Lesson.Kind.UNSETTLED: "it had gained so far when its measuring was ended",
    Lesson.Kind.HARM: "confirmed to be worse",
    Lesson.Kind.FAILURE: "the code failed",
    Lesson.Kind.INVALID: "the result did not count",
    Lesson.Kind.REJECTED: "a person rejected it: not proposed again",
    Lesson.Kind.CONFLICT: "two changes that cannot stand together",
}
TONES = {
    Lesson.Kind.GAIN: "good", Lesson.Kind.NEAR_MISS: "warn", Lesson.Kind.NO_GAIN: "", Lesson.Kind.HARM: "bad",
    Lesson.Kind.FAILURE: "bad", Lesson.Kind.INVALID: "bad", Lesson.Kind.REJECTED: "bad", Lesson.Kind.CONFLICT: "warn",
    Lesson.Kind.UNSETTLED: "",
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
            for name in ("q", "project", "kind", "technique", "tag", "file", "benchmark", "state", "id")
        }
        self.number = asked.get("page", "1")

    @cached_property
    def projects(self) -> list[Project]:
        return list(Membership.projects_of(self.user).order_by("-pk"))

    @property
    def kinds(self) -> list[tuple[str, str]]:
        return [(kind.value, f"{str(kind.label).lower()}: {EXPLAINED[kind]}") for kind in Lesson.Kind]

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(name, words) for name, (words, _) in STATES.items()]

    @cached_property
    def facets(self) -> list[Facet]:
        """What can be chosen, the most frequent first; a filter with one choice is no choice."""
        names = ("technique", "tag", "file", "benchmark")
        counts: dict[str, Counter[str]] = {name: Counter() for name in names}
        rows = Lesson.objects.filter(project__in=self.projects).order_by("-pk")
        for techniques, tags, files, benchmark in rows.values_list("techniques", "tags", "files", "benchmark")[
            :CHOICES_OF
        ]:
            found = ([step["technique"] for step in techniques], tags, files, [benchmark])
            for name, values in zip(names, found, strict=True):
                counts[name].update({str(value) for value in values})
        facets = [Facet(name, self.asked[name], count.most_common()) for name, count in counts.items()]
        return [facet for facet in facets if len(facet.choices) > 1 or facet.chosen]

    @cached_property
    def page(self) -> Page[Any]:
        rows = self._ordered(Lesson.objects.filter(self._fitting(), project__in=self.projects).search(self.asked["q"]))
        for name in ("technique", "tag", "file"):
            if self.asked[name]:
                rows = rows.labelled(self.asked[name])
        near = ("project", "thread", "experiment__candidate__idea", "request", "session", "superseded_by__experiment")
        rows = rows.select_related(*near).prefetch_related("supersedes__experiment")
        return Paginator(rows, A_PAGE).get_page(self.number)

    @property
    def order(self) -> str:
        return "best fit first" if self.asked["q"] else "newest first"

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

    def _ordered(self, rows: LessonQuerySet) -> LessonQuerySet:
        fits = ranks(self.asked["q"], BEST_OF) if self.asked["q"] else {}
        if not fits:
            return rows.order_by("-pk")
        fit = Case(
            *(When(pk=pk, then=Value(value)) for pk, value in fits.items()),
            default=Value(0.0),
            output_field=FloatField(),
        )
        return rows.order_by(fit.desc(), "-pk")

    def _fitting(self) -> Q:
        fitting = STATES[self.asked["state"]][1] if self.asked["state"] in STATES else Q()
        if self.asked["project"]:
            fitting &= Q(project__name=self.asked["project"])
        for name in ("kind", "benchmark"):
            if self.asked[name]:
                fitting &= Q(**{name: self.asked[name]})
        if self.asked["id"].isdecimal():
            fitting &= Q(pk=int(self.asked["id"][:15]))
        return fitting


@dataclass(frozen=True)
class Facet:
    """One thing to filter by, with what there is and how often."""

    name: str
    chosen: str
    choices: list[tuple[str, int]]


class LessonRow:
    def __init__(self, lesson: Lesson, board: LessonsBoard) -> None:
        self.lesson = lesson
        self.may_change = board.may_change(lesson)

    @property
    def tone(self) -> str:
        return TONES.get(Lesson.Kind(self.lesson.kind), "")

    @property
    def is_dead_end(self) -> bool:
        return self.lesson.is_dead_end

    @property
    def parts(self) -> list[Lesson]:
        """Earlier lessons whose measurements this one holds too."""
        return [old for old in self.lesson.supersedes.all() if old.superseded_why == Lesson.Superseded.POOLED]

    @property
    def contradicts(self) -> list[Lesson]:
        return [old for old in self.lesson.supersedes.all() if old.superseded_why == Lesson.Superseded.CONTRARY]

    @property
    def superseded(self) -> str:
        """By what later lesson, in words; empty where it stands."""
        why = self.lesson.superseded_why if self.lesson.superseded_by_id else ""
        return {"pooled": "counted in", "stronger": "superseded by", "contrary": "contradicted by"}.get(why, "")

    @property
    def held_until(self) -> str:
        """What would make a discard worth another look; empty where it refuses nothing."""
        lesson = self.lesson
        holds = lesson.assumes if lesson.binding and not lesson.retracted and lesson.reopened is None else None
        return holds.words() if holds else ""

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
