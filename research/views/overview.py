"""The overview: where a person looks first, and comes back to."""

from __future__ import annotations

from datetime import datetime

from django.contrib.auth.models import AbstractUser
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_POST

from research.models import Preferences
from research.views.digest import AWAY, Digest
from research.views.overview_board import OverviewBoard
from research.views.pages import go, render_page

BACK = "back_at"  # in the session: when this person came back


def page(request: HttpRequest) -> HttpResponse:
    user: AbstractUser = request.user  # type: ignore[assignment]  # LoginRequiredMiddleware
    board = OverviewBoard(user)
    if request.GET.get("part") == "frontiers" and request.GET.get("have") == board.frontiers_key:
        return HttpResponse(status=204)  # drawings of 10,000 attempts that have not changed
    digest = None if request.GET.get("part") else _away(request, board)
    return render_page(request, "overview", {"board": board, "digest": digest})


def _away(request: HttpRequest, board: OverviewBoard) -> Digest | None:
    """The digest of an absence, until the person has been back for half an hour or has marked it as seen."""
    preferences, now = Preferences.of(board.user), timezone.now()
    if preferences.visit(now, AWAY):
        request.session[BACK] = now.isoformat()
    back: datetime | None = parse_datetime(request.session.get(BACK, "")) if BACK in request.session else None
    if back is None or now - back > AWAY:
        return None
    digest = Digest(board.user, board.projects, preferences.away_since, back, now)
    return None if digest.is_empty else digest


@require_POST
def seen(request: HttpRequest) -> HttpResponse:
    """Mark as seen what happened until now."""
    Preferences.of(request.user).mark_seen()  # type: ignore[arg-type]
    request.session.pop(BACK, None)
    return go(request, reverse("overview"))
