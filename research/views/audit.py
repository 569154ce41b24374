"""The audit page, of one project or of the lab: who did what, when, to what and why. It can be read and saved."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.views.decorators.http import require_safe

from research.models import Membership, Project, Role
from research.views.audit_board import AuditBoard, EntryRow
from research.views.pages import project_for, render_page

COLUMNS = ("at", "who", "action", "project", "about", "detail", "hash")


@require_safe
def of_project(request: HttpRequest, name: str) -> HttpResponse | StreamingHttpResponse:
    return _answer(request, project_for(request, name))


@require_safe
def of_lab(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    if Membership.role_of(request.user, None) < Role.ADMIN:  # type: ignore[arg-type]  # LoginRequiredMiddleware
        raise PermissionDenied("only an admin of the lab reads the whole audit; each project's page links to its own")
    return _answer(request, None)


def _answer(request: HttpRequest, project: Project | None) -> HttpResponse | StreamingHttpResponse:
    board = AuditBoard(project, request.GET)
    if write := FORMATS.get(request.GET.get("format", "")):
        kind, lines = write
        response = StreamingHttpResponse(lines(board), content_type=f"{kind}; charset=utf-8")
        name = f"{project.name if project else 'lab'}-audit.{request.GET['format']}"
        response["Content-Disposition"] = f'attachment; filename="{name}"'
        return response
    if request.GET.get("part") == "entries" and request.GET.get("have") == board.have:
        return HttpResponse(status=204)
    return render_page(request, "audit", {"project": project, "board": board})


def _csv(board: AuditBoard) -> Iterator[str]:
    yield _line(COLUMNS)
    for row in board.all():
        yield _line(_cells(row))


def _line(cells: tuple[str, ...]) -> str:
    """A text that a spreadsheet would run as a formula is kept from it by an apostrophe."""
    line = io.StringIO()
    csv.writer(line).writerow([f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text for text in cells])
    return line.getvalue()


def _json(board: AuditBoard) -> Iterator[str]:
    """One array, an entry a line."""
    before = "[\n"
    for row in board.all():
        entry = row.entry
        fields = {
            "at": entry.at.isoformat(), "who": entry.who, "action": entry.action, "project": entry.place,
            "detail": entry.detail, "hash": entry.hash,
        }  # fmt: skip
        yield before + json.dumps(fields)
        before = ",\n"
    yield ("[" if before == "[\n" else "\n") + "]\n"


def _cells(row: EntryRow) -> tuple[str, ...]:
    entry = row.entry
    about = " ".join(link.text for link in row.about)
    words = "; ".join(f"{name} {text}" if name else text for name, text in row.details)
    return entry.at.isoformat(), entry.who, entry.action, entry.place, about, words, entry.hash


FORMATS = {"csv": ("text/csv", _csv), "json": ("application/json", _json)}
