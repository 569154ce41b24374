"""Comments of the merge page: made, answered, resolved. The answer is the fragment that shows them."""

from __future__ import annotations

from collections.abc import Callable

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_POST

from research.models import Comment, Membership, MergeRequest, NotMergeable, Role
from research.views.pages import checked, go
from research.views.review import requests, show_file
from research.views.review_changes import Changes
from research.views.review_file import FilePage

QUOTED = 400  # characters of the line that are kept beside a comment


@require_POST
def make(request: HttpRequest, id: str) -> HttpResponse:
    """Begin a thread on a line, a file or the whole change."""
    found = checked(request, requests(id), Role.MEMBER)
    changes = Changes(found, request.user, _shown_as(request))  # type: ignore[arg-type]
    asked = request.POST
    path, side, line = asked.get("path", ""), asked.get("side", ""), asked.get("line", "")
    try:
        quote = _quote(request, changes, path, side, line) if line else ""
        if path and path not in changes.talk.paths:
            raise NotMergeable("the change has no such file")
        Comment.make(
            found, request.user, asked.get("text", ""), path, side if line else "",  # type: ignore[arg-type]
            int(line) if line else None, quote,
        )  # fmt: skip
    except NotMergeable as refusal:
        return go(request, _page(found), problem=f"Nothing was said: {refusal}")
    return _answer(request, changes, path)


def _quote(request: HttpRequest, changes: Changes, path: str, side: str, line: str) -> str:
    """The text of the line that is commented."""
    file = next((file for file in changes.files if file.path == path), None)
    if file is None or not line.isdecimal() or len(line) > 9:
        raise NotMergeable("the change has no such line")
    text = FilePage(changes, file, request).text_at(side, int(line))
    if text is None:
        raise NotMergeable("this line is no part of the change that is shown")
    return text[:QUOTED]


@require_POST
def decide(request: HttpRequest, id: str, comment: str) -> HttpResponse:
    """Reply to a thread, resolve it or open it again; `id` is the request that the person looks at."""
    found = checked(request, requests(id), Role.MEMBER)
    row = found.talk.threads().filter(public_id=comment).select_related("request__project").first()
    act = ACTS.get(request.POST.get("act", ""))
    if row is None or act is None:
        raise Http404("there is no such comment, or no such act")
    try:
        act(row, request)
    except NotMergeable as refusal:
        return go(request, _page(found), problem=f"Nothing was changed: {refusal}")
    changes = Changes(found, request.user, _shown_as(request))  # type: ignore[arg-type]
    is_here = any(thread.comment.pk == row.pk for thread in changes.talk.of(row.path))
    return _answer(request, changes, row.path if is_here else "")


ACTS: dict[str, Callable[[Comment, HttpRequest], object]] = {
    "reply": lambda row, request: row.reply(request.user, request.POST.get("text", "")),  # type: ignore[arg-type]
    "resolve": lambda row, request: row.resolve(request.user),  # type: ignore[arg-type]
    "reopen": lambda row, request: row.reopen(request.user),  # type: ignore[arg-type]
}


def _shown_as(request: HttpRequest) -> dict[str, str]:
    """How the person sees the diff, as the form says."""
    return {name: request.POST[name] for name in ("from", "split", "whole") if name in request.POST}


def _answer(request: HttpRequest, changes: Changes, path: str) -> HttpResponse:
    changes.__dict__.pop("talk", None)
    if not request.headers.get("HX-Request"):
        return go(request, _page(changes.request))
    if not path:
        may = Membership.role_of(changes.user, changes.request.project) >= Role.MEMBER
        context = {"changes": changes, "request_row": changes.request, "may_comment": may}
        return render(request, "review/request/_talk.html", context)
    return show_file(request, changes, next(file.number for file in changes.files if file.path == path))


def _page(row: MergeRequest) -> str:
    return f"{reverse('merge-request', args=[row.public_id])}#talk"
