"""The session page: one conversation with a model, readable whole, live while it is open; and asking it again."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST

from research.logtext import said
from research.models import Membership, NotAllowed, Role, Session
from research.views.pages import checked, go, render_page
from research.views.session_board import SessionBoard
from research.views.session_models import configured

TOGETHER = ("project", "thread", "idea", "replay_of")


def page(request: HttpRequest, id: str) -> HttpResponse:
    session = _session(request, id)
    if request.GET.get("part") == "text":
        return _text(request, session)
    return render_page(request, "session", _context(request, session))


@require_POST
def replay(request: HttpRequest, id: str) -> HttpResponse:
    session = _session(request, id, Role.MEMBER)
    model = request.POST.get("model", "").strip()
    try:
        configured().require(model)
        again = session.replay(request.user, model)  # type: ignore[arg-type]
    except (NotAllowed, ValueError) as refused:
        return go(request, reverse("session", args=[id]), problem=str(refused))
    said = "The same prompt is asked again; the answer is shown beside the first and tried by nobody"
    return go(request, reverse("session", args=[again.public_id]), said=said)


def _session(request: HttpRequest, id: str, role: int = Role.VIEWER) -> Session:
    return checked(request, Session.objects.filter(public_id=id).select_related(*TOGETHER), role)


def _context(request: HttpRequest, session: Session) -> dict[str, Any]:
    after = _number(request.GET.get("after"))
    return {
        "session": session,
        "thread": session.thread,
        "project": session.project,
        "board": SessionBoard(session, -1 if after is None else after),
        "may_replay": Membership.role_of(request.user, session.project) >= Role.MEMBER,  # type: ignore[arg-type]
        "models": configured,
        "note": said(session.note),
    }


def _text(request: HttpRequest, session: Session) -> HttpResponse:
    """The whole of a message or of an argument, as a fragment of text."""
    asked = request.GET
    number, call = _number(asked.get("n")), _number(asked.get("call"))
    text = SessionBoard(session).text(number, call, asked.get("argument", "")) if number is not None else None
    if text is None:
        raise Http404("no such text in this session")
    return render_page(request, "session", {"text": text})


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 9 else None
