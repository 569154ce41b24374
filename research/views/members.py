"""The members page, of one project or of the lab: who has which role since when and from whom; admins change it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from research.models import Membership, Project, Role
from research.views.pages import act_or_show, project_for


@require_http_methods(["GET", "HEAD", "POST"])
def of_project(request: HttpRequest, name: str) -> HttpResponse:
    return _answer(request, project_for(request, name, Role.ADMIN if request.method == "POST" else Role.VIEWER))


@require_http_methods(["GET", "HEAD", "POST"])
def of_lab(request: HttpRequest) -> HttpResponse:
    """Roles in all projects at once."""
    if Membership.role_of(request.user, None) < Role.ADMIN:  # type: ignore[arg-type]  # LoginRequiredMiddleware
        raise PermissionDenied("only an admin of the lab sees who has a role in all projects")
    return _answer(request, None)


@dataclass
class MembersBoard:
    user: AbstractUser
    project: Project | None
    invited: str = ""  # whom, and the link that signs them in; shown once
    link: str = ""
    roles = tuple(Role.choices)

    @property
    def once(self) -> str:
        return self.link

    @cached_property
    def may_change(self) -> bool:
        return Membership.role_of(self.user, self.project) >= Role.ADMIN

    @cached_property
    def may_change_all(self) -> bool:
        return Membership.role_of(self.user, None) >= Role.ADMIN

    @cached_property
    def _rows(self) -> list[Membership]:
        rows = Membership.objects.filter(Q(project=self.project) | Q(project=None)).select_related("user", "given_by")
        return list(rows.order_by("-role", "user__username"))

    @property
    def own(self) -> list[Membership]:
        """Those of this project, or of the lab where there is none."""
        return [row for row in self._rows if row.project_id == (self.project.pk if self.project else None)]

    @property
    def everywhere(self) -> list[Membership]:
        """Those who are here because they have a role in all projects."""
        return [row for row in self._rows if row.project_id is None] if self.project else []

    @cached_property
    def superusers(self) -> list[str]:
        rows = get_user_model().objects.filter(is_superuser=True, is_active=True).order_by("username")
        return [user.get_username() for user in rows]

    @property
    def others(self) -> list[str]:
        """Names that could be given a role: of people whom this admin meets in projects of theirs."""
        seen = Membership.objects.filter(Q(project__in=Membership.projects_of(self.user)) | Q(project=None))
        names = set(seen.values_list("user__username", flat=True))
        return sorted(names - {row.user.get_username() for row in self.own})


def _answer(request: HttpRequest, project: Project | None) -> HttpResponse:
    here = reverse("members", args=[project.name]) if project else reverse("lab-members")
    board = MembersBoard(request.user, project)  # type: ignore[arg-type]
    return act_or_show(request, "members", here, board, ACTS)


def _give(request: HttpRequest, board: MembersBoard) -> str:
    """Give a role, or take it away (role 0)."""
    name, where = request.POST.get("user", "").strip(), board.project or "every project"
    person = get_user_model().objects.filter(username=name).first()
    if person is None:
        raise ValueError(f"Nobody here is called {name[:40]!r}; invite them")
    role = _role(request)
    Membership.give(board.user, person, board.project, role)
    return f"{person} is now {Role(role).label} of {where}" if role else f"{person} has no role in {where} now"


def _invite(request: HttpRequest, board: MembersBoard) -> str:
    name = request.POST.get("user", "").strip()
    token = Membership.invite(board.user, name, board.project, _role(request))
    board.invited, board.link = name, request.build_absolute_uri(reverse("sign-in-link", args=[token]))
    return f"{name} is invited"


def _single(request: HttpRequest, board: MembersBoard) -> str:
    if board.project is None:
        raise ValueError("single-person mode is switched in one project at a time")
    board.project.set_single_person(request.user, request.POST.get("on") == "on")  # type: ignore[arg-type]
    return f"Single-person mode is {'on' if board.project.single_person else 'off'}"


def _role(request: HttpRequest) -> int:
    role = request.POST.get("role", "")
    if role not in ("0", *map(str, Role.values)):
        raise ValueError("That is no role")
    return int(role)


ACTS: dict[str, Callable[[HttpRequest, MembersBoard], str]] = {"give": _give, "invite": _invite, "single": _single}
