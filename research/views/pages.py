"""What every page shares: rendering whole or in part, and fetching rows that this person may see."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.template import TemplateDoesNotExist

from research.models import Membership, NotAllowed, Project, Role

Row = TypeVar("Row", bound=Model)


def render_page(request: HttpRequest, family: str, context: Mapping[str, Any]) -> HttpResponse:
    """`family/page.html`, or with `?part=threads` the fragment `family/_threads.html` alone.

    Callables in the context are called by the template that uses them, so a fragment computes only what it shows.
    """
    part = request.GET.get("part", "")
    if part and not re.fullmatch(r"[a-z_]{1,40}", part):
        raise Http404("no such part of the page")
    template = f"{family}/_{part}.html" if part else f"{family}/page.html"
    try:
        response = render(request, template, dict(context))
    except TemplateDoesNotExist as missing:
        if missing.args and missing.args[0] == template and part:
            raise Http404("no such part of the page") from missing
        raise
    response["Cache-Control"] = "no-store"  # a page from the history must not show yesterday's numbers
    return response


def project_for(request: HttpRequest, name: str, role: int = Role.VIEWER) -> Project:
    """The project of this name. 404 where the person may not know of it, 403 where the role falls short."""
    return checked(request, Project.objects.filter(name=name), role)


def checked(request: HttpRequest, rows: QuerySet[Row], role: int = Role.VIEWER) -> Row:
    """The one row (a project, or something with a `project`) if this person has the role in its project."""
    row = rows.first()
    if row is None:
        raise Http404("there is nothing under this address")
    project = row if isinstance(row, Project) else row.project  # type: ignore[attr-defined]
    mine = Membership.role_of(request.user, project)  # type: ignore[arg-type]  # LoginRequiredMiddleware
    if mine < Role.VIEWER:
        raise Http404("there is nothing under this address")
    if mine < role:
        raise PermissionDenied(f"this needs the role {Role(role).label} in {project}; you are {Role(mine).label}")
    return row


class Board(Protocol):
    """What a page of forms shows and acts on. `once`: what an act has made that can be read only now, else empty."""

    project: Project | None

    @property
    def once(self) -> str: ...


Acted = TypeVar("Acted", bound=Board)


def act_or_show(
    request: HttpRequest, family: str, here: str, board: Acted, acts: Mapping[str, Callable[[HttpRequest, Acted], str]]
) -> HttpResponse:
    """Do what a form asks for by `act`, and come back `here` with what was done; without a form, show the page.

    What an act has made that is shown once comes at once, with 201.
    """
    if request.method == "POST":
        act = acts.get(request.POST.get("act", ""))
        if act is None:
            raise Http404("there is no such act")
        try:
            said = act(request, board)
        except (NotAllowed, ValueError) as refusal:
            return go(request, here, problem=str(refusal))
        if not board.once:
            return go(request, here, said)
    response = render_page(request, family, {"project": board.project, "board": board})
    response.status_code = 201 if board.once else 200
    return response


def go(request: HttpRequest, url: str, said: str = "", problem: str = "") -> HttpResponse:
    """Redirect after a form, with a message; htmx follows it as a browser would."""
    if said:
        messages.success(request, said)
    if problem:
        messages.error(request, problem)
    if request.headers.get("HX-Request"):
        return HttpResponse(status=204, headers={"HX-Redirect": url})
    return HttpResponseRedirect(url)
