"""The review queue, the merge page of one request, its files, and the decision."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_POST

from research import tasks
from research.models import MergeRequest, NotMergeable, Preferences, Project, Role
from research.views.evidence_line import evidence_line
from research.views.pages import checked, go, render_page
from research.views.review_board import RequestPage
from research.views.review_changes import Changes
from research.views.review_file import FilePage
from research.views.review_queue import Queue

MORE_PAIRS = 4


def queue(request: HttpRequest) -> HttpResponse:
    return render_page(request, "review", {"queue": Queue(request.user)})  # type: ignore[arg-type]


def page(request: HttpRequest, id: str) -> HttpResponse:
    found = checked(request, requests(id))
    board = RequestPage(found, request.user)  # type: ignore[arg-type]
    link = request.build_absolute_uri(reverse("merge-request", args=[found.public_id]))
    context = {
        "board": board, "request_row": found, "evidence": evidence_line(board.experiment, found.verdict, link),
        "changes": Changes(found, request.user, request.GET.dict()),  # type: ignore[arg-type]
        "may_comment": lambda: board.may_comment,
    }  # fmt: skip
    return render_page(request, "review/request", context)


def diff(request: HttpRequest, id: str, number: int) -> HttpResponse:
    """The lines of one file with what was said of them; without htmx as a page of its own."""
    found = checked(request, requests(id))
    return show_file(request, Changes(found, request.user, request.GET.dict()), number)  # type: ignore[arg-type]


def show_file(request: HttpRequest, changes: Changes, number: int) -> HttpResponse:
    page = FilePage(changes, changes.file(number), request)
    template = "review/_file.html" if request.headers.get("HX-Request") else "review/file.html"
    response = render(request, template, {"page": page, "file": page.file, "request_row": changes.request})
    response["Cache-Control"] = "private, no-cache"
    response["Vary"] = "HX-Request, Cookie"
    return response


@require_POST
def viewed(request: HttpRequest, id: str, number: int) -> HttpResponse:
    """Mark the change of a file as viewed by this person, or as not viewed. It is their own affair: a viewer may."""
    found = checked(request, requests(id))
    changes = Changes(found, request.user, {})  # type: ignore[arg-type]
    changes.mark(number, request.POST.get("viewed") == "1")
    if request.headers.get("X-CSRFToken"):
        return HttpResponse(status=204)
    return go(request, f"{reverse('merge-request', args=[found.public_id])}#files")


@require_POST
def layout(request: HttpRequest, id: str) -> HttpResponse:
    """One column or two, kept for this person."""
    found = checked(request, requests(id))
    split = request.POST.get("split") == "1"
    Preferences.objects.filter(pk=Preferences.of(request.user).pk).update(split_diff=split)  # type: ignore[arg-type]
    against = request.POST.get("from", "")
    query = f"?from={against}" if against.isdecimal() else ""
    return go(request, f"{reverse('merge-request', args=[found.public_id])}{query}#files")


@require_POST
def decide(request: HttpRequest, id: str) -> HttpResponse:
    """Approve, reject, return or measure further; bound to the commit that the person saw."""
    act = DECISIONS.get(request.POST.get("act", ""))
    if act is None:
        raise Http404("there is no such decision")
    found = checked(request, requests(id), Role.MEMBER if act is measure_more else Role.REVIEWER)
    here = reverse("merge-request", args=[found.public_id])
    try:
        said = act(found, request.user, request)  # type: ignore[arg-type]
    except NotMergeable as refusal:
        return go(request, here, problem=f"Nothing was changed: {refusal}")
    ring(found.project)
    return go(request, here if act in (measure_more, roll_back) else after(found, request.user), said=said)  # type: ignore[arg-type]


def approve(row: MergeRequest, by: User, request: HttpRequest) -> str:
    merged = row.approve(request.POST.get("commit", ""), by)
    also = f", with {len(merged) - 1} below it" if len(merged) > 1 else ""
    return f"Merged{also}: main moved to {row.commit[:7]}."


def reject(row: MergeRequest, by: User, request: HttpRequest) -> str:
    row.reject(by, said(request, "say why: the reason is kept as a dead end"))
    return f"Rejected {row.commit[:7]}; the reason is recorded as a dead end."


def send_back(row: MergeRequest, by: User, request: HttpRequest) -> str:
    note = request.POST.get("note", "").strip()[:2000]
    if not note and not row.talk.unresolved().exists():
        raise NotMergeable("say what should change")
    row.request_changes(by, note)
    return f"Sent back {row.commit[:7]}; {row.thread} tries once more with other settings."


def measure_more(row: MergeRequest, by: User, request: HttpRequest) -> str:
    pairs = request.POST.get("pairs", "")
    row.more_seeds(by, int(pairs) if pairs.isdecimal() else MORE_PAIRS)
    return "More pairs are being measured; they appear here as they come in."


def roll_back(row: MergeRequest, by: User, request: HttpRequest) -> str:
    undone = row.roll_back(by, said(request, "say why: the reason is kept as a dead end"))
    also = (
        f"; {len(undone) - 1} merged after it {'is' if len(undone) == 2 else 'are'} measured again"
        if undone[1:]
        else ""
    )
    return f"Rolled back: main stands on {row.base[:7]} again{also}."


DECISIONS: dict[str, Callable[[MergeRequest, User, HttpRequest], str]] = {
    "approve": approve,
    "reject": reject,
    "return": send_back,
    "more": measure_more,
    "rollback": roll_back,
}


def said(request: HttpRequest, missing: str) -> str:
    """What the person wrote."""
    note = request.POST.get("note", "").strip()
    if not note:
        raise NotMergeable(missing)
    return note[:2000]


def after(row: MergeRequest, user: User) -> str:
    """Where to go on: the next request that waits for this person, else the queue."""
    rest = [waiting.request for waiting in Queue(user).waiting if not waiting.blocked]
    return reverse("merge-request", args=[rest[0].public_id]) if rest else reverse("review")


def ring(project: Project) -> None:
    """Let the loop see what was decided now, not at the next sweep."""
    tasks.advance_project(project.pk)
    for pk in project.threads.values_list("pk", flat=True):
        tasks.advance_thread(pk)


def requests(id: str) -> QuerySet[MergeRequest]:
    related = (
        "project", "thread__project", "thread__steered_by", "verdict__experiment", "candidate__idea", "candidate__diff",
    )  # fmt: skip
    return MergeRequest.objects.filter(public_id=id).select_related(*related, "decided_by", "parent")
