"""What a person sets for themselves, and the way to the pages where they choose members and read the audit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from django.contrib.auth.models import AbstractUser
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import reverse

from research.models import Membership, Preferences, Project, Role
from research.views.pages import go, render_page


def settings(request: HttpRequest) -> HttpResponse:
    if request.method == "GET":
        return render_page(request, "people", {"board": SettingsBoard(request.user)})  # type: ignore[arg-type]
    act = ACTS.get(request.POST.get("act", ""))
    if request.method != "POST" or act is None:
        return HttpResponseNotAllowed(["GET", "POST"])
    return act(request)


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
    def is_admin(self) -> bool:
        """Of the lab."""
        return Membership.role_of(self.user, None) >= Role.ADMIN

    @cached_property
    def projects(self) -> list[Project]:
        return list(Membership.projects_of(self.user).order_by("-pk")[:50])


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


ACTS = {"theme": _theme, "keys": _keys}
