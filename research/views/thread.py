"""The thread page: what one researcher does now, what it has measured, and how people steer it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.urls import reverse
from django.views.decorators.http import require_POST

from research.models import Membership, NotMergeable, Role, Thread
from research.tasks import advance_thread
from research.views.deciding_board import DecidingBoard
from research.views.difftext import files_of
from research.views.pages import checked, go, render_page
from research.views.session_thread import ThreadTalk
from research.views.thread_board import ThreadBoard


def page(request: HttpRequest, id: str) -> HttpResponse:
    thread = _thread(request, id)
    if request.GET.get("part") == "diff" and request.GET.get("head") == thread.head:
        return HttpResponse(status=204)  # nothing new: what a person has unfolded stays
    return render_page(request, "thread", _context(request, thread))


@require_POST
def steer(request: HttpRequest, id: str) -> HttpResponse:
    thread = _thread(request, id, Role.MEMBER)
    asked = {"focus": request.POST.getlist("focus"), "forbid": request.POST.getlist("forbid")}
    note = request.POST.get("note", "").strip()[:500]
    try:
        thread.steer(request.user, **asked, note=note)  # type: ignore[arg-type]
    except ValueError as error:
        filled = {**_context(request, thread), "refused": str(error), "asked": {**asked, "note": note}}
        response = render_page(request, "thread", filled)
        response.status_code = 422
        return response
    advance_thread(thread.pk)
    return go(request, reverse("thread", args=[id]), said="Steering given; the next idea follows it")


@require_POST
def ask(request: HttpRequest, id: str) -> HttpResponse:
    """Say a sentence, ask for one try, take either back, or raise the budget."""
    thread, sent = _thread(request, id, Role.MEMBER), request.POST
    by, text = request.user, sent.get("text", "")
    acts: dict[str, tuple[Callable[[], None], str]] = {
        "say": (lambda: thread.say(by, text), "Said; the next idea is made under it"),  # type: ignore[arg-type]
        "try": (lambda: thread.try_this(by, text), "Asked for; the next idea takes it or says why not"),  # type: ignore[arg-type]
        "withdraw": (lambda: thread.withdraw(by, sent.get("id", "")), "Taken back"),  # type: ignore[arg-type]
        "budget": (lambda: thread.raise_budget(by, *_limits(sent)), "The budget is raised"),  # type: ignore[arg-type]
    }
    if sent.get("act") not in acts:
        raise Http404("say, try, withdraw or budget")
    act, said = acts[sent["act"]]
    url = reverse("thread", args=[id])
    try:
        act()
    except ValueError as refusal:
        return go(request, url, problem=str(refusal))
    advance_thread(thread.pk)
    return go(request, f"{url}#steering", said=said)


def _limits(sent: QueryDict) -> tuple[int | None, Decimal | None]:
    """Trials and money of the form; what is empty stays. Raises ValueError."""
    money = sent.get("max_money", "").strip()
    try:
        amount = Decimal(money) if money else None
    except InvalidOperation:
        raise ValueError(f"{money[:20]!r} is no amount of money") from None
    if amount is not None and not (amount.is_finite() and amount < 1_000_000):
        raise ValueError("money must be below a million")
    return _number(sent.get("max_trials")), amount


@require_POST
def state(request: HttpRequest, id: str) -> HttpResponse:
    """Pause or resume."""
    thread = _thread(request, id, Role.MEMBER)
    acts = {"pause": thread.pause, "resume": thread.resume}
    act = acts.get(request.POST.get("act", ""))
    if act is None:
        raise Http404("a thread can be paused or resumed")
    url = reverse("thread", args=[id])
    try:
        act(by=request.user)  # type: ignore[arg-type]
    except NotMergeable as refusal:
        return go(request, url, problem=str(refusal))
    advance_thread(thread.pk)
    return go(request, url, said=f"Thread {thread.number} is {thread.state}")


def _thread(request: HttpRequest, id: str, role: int = Role.VIEWER) -> Thread:
    return checked(request, Thread.objects.filter(public_id=id).select_related("project", "steered_by"), role)


def _context(request: HttpRequest, thread: Thread) -> dict[str, Any]:
    asked = request.GET
    everything, before = asked.get("all") == "1", _number(asked.get("before"))
    older, talk_below = _number(asked.get("older")), _number(asked.get("talk"))
    board = ThreadBoard(thread, asked.get("e", ""), asked.getlist("metric"))
    return {
        "thread": thread,
        "project": thread.project,
        "board": board,
        "talk": ThreadTalk(thread, talk_below, board),
        "session_query": _query(part="session", talk=talk_below),
        "deciding": DecidingBoard(thread.project, thread),
        "max_money": "" if thread.max_money is None else f"{float(thread.max_money):.8g}",
        "gain_hours": _hours(thread.criteria.get("device_seconds_without_gain")),
        "may_steer": Membership.role_of(request.user, thread.project) >= Role.MEMBER,  # type: ignore[arg-type]
        "listed": lambda: board.experiments(older),
        "older": older,
        "stream": lambda: board.events(everything, before),
        "everything": everything,
        "before": before,
        "files": lambda: files_of(board.diff.patch) if board.diff else [],
        "file": lambda: _file(board, _number(asked.get("n"))),
        "labels": lambda: _labels(thread),
        "curves_query": _query(part="curves", e=board.chosen, metric=board.chosen_metrics),
        "list_query": _query(part="experiments", older=older),
        "events_query": _query(part="events", all=asked.get("all") if everything else None, before=before),
        "asked": {name: thread.directives.get(name, "") for name in ("focus", "forbid", "note")},
    }


def _hours(seconds: float | None) -> str:
    return f"{seconds / 3600:.6g}" if seconds else ""


def _labels(thread: Thread) -> list[tuple[str, list[Any]]]:
    """What steering may name, in groups."""
    names = {"family": "Families", "problem": "Problems", "file": "Files", "technique": "Techniques"}
    labels = thread.steering_labels()
    return [(name, [label for label in labels if label.kind == kind]) for kind, name in names.items()]


def _file(board: ThreadBoard, number: int | None) -> Any:
    files = files_of(board.diff.patch) if board.diff else []
    if number is None or not 0 <= number < len(files):
        raise Http404("no such file in this diff")
    return files[number]


def _query(**values: Any) -> str:
    """An address's query without what is empty."""
    return urlencode({name: value for name, value in values.items() if value}, doseq=True)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else None
