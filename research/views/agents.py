"""Agents from outside: the tokens they come with, of a project or of one person, and the brief that they read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from django.contrib.auth.models import AbstractUser
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from research.models import ApiToken, Membership, Project, Role, Thread
from research.views.pages import act_or_show, project_for, render_page

MOST = 100  # tokens of one page, the newest
LIVES = (("7", "7 days"), ("30", "30 days"), ("90", "90 days"), ("365", "a year"))


@require_http_methods(["GET", "HEAD", "POST"])
def of_project(request: HttpRequest, name: str) -> HttpResponse:
    proposes = request.method == "POST" and request.POST.get("may") == "propose"
    return _answer(request, project_for(request, name, Role.MEMBER if proposes else Role.VIEWER))


@require_http_methods(["GET", "HEAD", "POST"])
def of_person(request: HttpRequest) -> HttpResponse:
    """One's own tokens, whatever they open."""
    return _answer(request, None)


@require_safe
def brief(request: HttpRequest, name: str) -> HttpResponse:
    """The page that an agent reads first, as it reads it."""
    from research.api.books import facts_of
    from research.api.brief import brief as written  # with it comes what reads requests: not before somebody asks

    project = project_for(request, name)
    text = written(project, facts_of(project), _address(request))
    return render_page(request, "brief", {"project": project, "text": text})


@dataclass
class AgentsBoard:
    user: AbstractUser
    project: Project | None
    address: str
    secret: str = ""  # of the token that was made just now; shown once
    lives = LIVES

    @property
    def once(self) -> str:
        return self.secret

    @cached_property
    def role(self) -> int:
        return Membership.role_of(self.user, self.project)

    @property
    def may_propose(self) -> bool:
        return self.project is None or self.role >= Role.MEMBER

    @cached_property
    def tokens(self) -> list[ApiToken]:
        """Of a project those that open it and are one's own, for its admins all; dead ones last."""
        rows = ApiToken.objects.select_related("owner", "project")
        if self.project is None:
            rows = rows.filter(owner=self.user.pk)
        elif self.role >= Role.ADMIN:
            rows = rows.filter(project=self.project)
        else:
            rows = rows.filter(Q(project=self.project) | Q(project=None), owner=self.user.pk)
        found = list(rows.order_by("-pk")[:MOST])
        return sorted(found, key=lambda token: not token.is_usable)

    @cached_property
    def places(self) -> list[Project]:
        """What a token of one's own may be for."""
        return list(Membership.projects_of(self.user).order_by("name")[:MOST])

    @cached_property
    def may_open_all(self) -> bool:
        return Membership.role_of(self.user, None) >= Role.VIEWER

    @cached_property
    def threads(self) -> list[Thread]:
        """Those that agents work on, or may."""
        rows = Thread.objects.filter(project=self.project, researcher="external").select_related("claim__token__owner")
        return list(rows.order_by("number"))

    @property
    def configuration(self) -> str:
        """What most programs that speak the Model Context Protocol accept."""
        server = {
            "type": "http", "url": f"{self.address}/mcp", "headers": {"Authorization": "Bearer YOUR-TOKEN"},
        }  # fmt: skip
        return json.dumps({"mcpServers": {"recursive-lab": server}}, indent=2)


def _answer(request: HttpRequest, project: Project | None) -> HttpResponse:
    here = reverse("agents", args=[project.name]) if project else reverse("tokens")
    board = AgentsBoard(request.user, project, _address(request))  # type: ignore[arg-type]  # LoginRequiredMiddleware
    return act_or_show(request, "agents", here, board, {"make": _make, "revoke": _revoke})


def _make(request: HttpRequest, board: AgentsBoard) -> str:
    project, asked = board.project, request.POST
    if project is None and (name := asked.get("project", "")):
        project = Membership.projects_of(board.user).filter(name=name).first()
        if project is None:
            raise ValueError("There is no such project")
    days = asked.get("days", "")
    if days not in dict(LIVES):
        raise ValueError("Choose how long the token lives")
    life, proposes = timedelta(days=int(days)), asked.get("may") == "propose"
    board.secret = ApiToken.make(board.user, asked.get("name", ""), project, proposes, life)
    return "The token is made"


def _revoke(request: HttpRequest, board: AgentsBoard) -> str:
    chosen = [token for token in board.tokens if token.public_id == request.POST.get("token")]
    if not chosen:
        raise ValueError("There is no such token; reload")
    chosen[0].revoke(board.user)
    return f"The token of {chosen[0].name} opens nothing any more"


def _address(request: HttpRequest) -> str:
    return f"{request.scheme}://{request.get_host()}"
