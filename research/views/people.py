"""What a person sets for themselves, and who is a member of the projects they administer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import reverse

from research.models import Membership, Preferences, Project, Role
from research.views.pages import go, render_page


def settings(request: HttpRequest) -> HttpResponse:
    if request.method == "GET":
        return render_page(request, "people", {"board": SettingsBoard(request.user), "roles": Role.choices})  # type: ignore[arg-type]
    act = ACTS.get(request.POST.get("act", ""))
    if request.method != "POST" or act is None:
        return HttpResponseNotAllowed(["GET", "POST"])
    return act(request)


@dataclass
class Circle:
    """The members of one project, or of all of them (`project` None)."""

    project: Project | None
    members: list[Membership]

    @property
    def key(self) -> str:
        return self.project.public_id if self.project else ""


@dataclass
class SettingsBoard:
    user: AbstractUser
    themes = (("system", "as the system"), ("light", "light"), ("dark", "dark"))

    @cached_property
    def roles(self) -> list[Membership]:
        """What this person is, and where."""
        mine = Membership.objects.filter(user=self.user.pk).select_related("project")
        return list(mine.order_by("project__name"))

    @cached_property
    def circles(self) -> list[Circle]:
        """Those that this person may change."""
        mine = Membership.objects.filter(user=self.user.pk, role=Role.ADMIN)
        everywhere = self.user.is_superuser or mine.filter(project=None).exists()
        projects = Project.objects.order_by("-pk")
        if not everywhere:
            projects = projects.filter(pk__in=mine.values("project"))
        within = Q(project__in=projects) | Q(project=None) if everywhere else Q(project__in=projects)
        members: dict[int | None, list[Membership]] = {}
        for row in Membership.objects.filter(within).select_related("user").order_by("-role", "user__username"):
            members.setdefault(row.project_id, []).append(row)
        return [
            Circle(project, members.get(project.pk if project else None, []))
            for project in ([None] if everywhere else []) + list(projects[:50])
        ]


def _theme(request: HttpRequest) -> HttpResponse:
    theme = request.POST.get("theme", "")
    if theme not in Preferences.Theme.values:
        return go(request, reverse("settings"), problem="That is no theme: choose system, light or dark")
    Preferences.objects.filter(pk=Preferences.of(request.user).pk).update(theme=theme)  # type: ignore[arg-type]
    return (
        HttpResponse(status=204) if request.headers.get("X-CSRFToken") else go(request, reverse("settings"), "Stored")
    )


def _keys(request: HttpRequest) -> HttpResponse:
    on = request.POST.get("shortcuts") == "on"
    Preferences.objects.filter(pk=Preferences.of(request.user).pk).update(shortcuts=on)  # type: ignore[arg-type]
    return go(request, reverse("settings"), f"Single-letter keys are {'on' if on else 'off'}")


def _member(request: HttpRequest) -> HttpResponse:
    """Give a role, or take it away (role 0)."""
    project = _administered(request, request.POST.get("project", ""))
    name, role = request.POST.get("user", "").strip(), request.POST.get("role", "")
    person = get_user_model().objects.filter(username=name).first()
    if person is None:
        problem = f"Nobody here is called {name!r}; a superuser adds people under Admin, Users"
        return go(request, reverse("settings"), problem=problem)
    if role not in ("0", *map(str, Role.values)):
        return go(request, reverse("settings"), problem="That is no role")
    Membership.give(request.user, person, project, int(role))  # type: ignore[arg-type]
    where = project or "every project"
    said = (
        f"{person} is now {Role(int(role)).label} of {where}" if int(role) else f"{person} has no role in {where} now"
    )
    return go(request, reverse("settings"), said)


def _administered(request: HttpRequest, public_id: str) -> Project | None:
    """The project whose members this person may change; None for all projects at once."""
    project = Project.objects.filter(public_id=public_id).first() if public_id else None
    if public_id and (project is None or not Membership.role_of(request.user, project)):  # type: ignore[arg-type]
        raise Http404("there is nothing under this address")
    if Membership.role_of(request.user, project) < Role.ADMIN:  # type: ignore[arg-type]
        raise PermissionDenied(f"only an admin of {project or 'every project'} changes who is a member")
    return project


ACTS = {"theme": _theme, "keys": _keys, "member": _member}
