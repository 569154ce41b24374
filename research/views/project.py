"""The project page: question, frontier, threads, experiments, budget; and what a member may do there."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from decimal import Decimal

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST

from research import tasks
from research.loop import begin
from research.models import NotAllowed, Project, Role
from research.views.deciding_board import DecidingBoard
from research.views.gain import gain_of
from research.views.pages import go, project_for, render_page
from research.views.project_board import ProjectBoard
from research.views.project_form import new
from research.views.session_models import why_not
from research.views.worth_board import WorthBoard

__all__ = ["add_thread", "new", "page", "state"]

COLUMNS = (
    "experiment", "thread", "purpose", "claim", "verdict", "stage", "gain", "half_95", "pairs", "e_value", "baseline",
    "candidate", "ended",
)  # fmt: skip
HOUR = 3600.0


def page(request: HttpRequest, name: str) -> HttpResponse | StreamingHttpResponse:
    project = project_for(request, name)
    board = ProjectBoard(project, request.user, request.GET)
    if request.GET.get("export") == "csv":
        return _export(project, board)
    if request.GET.get("part") == "frontier" and request.GET.get("have") == board.key_text:
        return HttpResponse(status=204)  # the drawing of 10,000 attempts has not changed
    worth = WorthBoard(project, request.user)  # type: ignore[arg-type]  # the lab's users are auth.User
    boards = {"board": board, "worth": worth, "deciding": DecidingBoard(project)}
    return render_page(request, "project", {"project": project, "may_steer": board.may_steer, **boards})


@require_POST
def state(request: HttpRequest, name: str) -> HttpResponse:
    """Pause, resume, or set the budget."""
    project = project_for(request, name, Role.MEMBER)
    try:
        said = _act(project, request.user, request)  # type: ignore[arg-type]
    except (NotAllowed, ValueError) as refused:
        return go(request, reverse("project", args=[name]), problem=str(refused))
    tasks.advance_project(project.pk)
    for pk in project.threads.values_list("pk", flat=True):
        tasks.advance_thread(pk)
    return go(request, reverse("project", args=[name]), said=said)


@require_POST
def add_thread(request: HttpRequest, name: str) -> HttpResponse:
    project, researcher = project_for(request, name, Role.MEMBER), request.POST.get("researcher", "")
    if why := why_not(researcher):
        return go(request, reverse("project", args=[name]), problem=f"{researcher} cannot search here: {why}")
    try:
        thread = begin.add_thread(project, researcher, request.user)  # type: ignore[arg-type]
    except (NotAllowed, ValueError) as refused:
        return go(request, reverse("project", args=[name]), problem=str(refused))
    tasks.advance_thread(thread.pk)
    return go(request, reverse("thread", args=[thread.public_id]), said=f"Thread {thread.number} begins from main.")


def _act(project: Project, user: User, request: HttpRequest) -> str:
    act = request.POST.get("action")
    if act == "pause":
        project.pause(by=user)
        return "Paused: pairs under way end, nothing new begins."
    if act == "resume":
        project.resume(by=user)
        return "The search goes on."
    if act == "budget":
        trials = amount(request.POST.get("max_trials", ""), "trials")
        money = amount(request.POST.get("max_money", ""), "money for models", 1e6)
        tokens = amount(request.POST.get("max_tokens", ""), "tokens of models", 1e15)
        project.set_budget(
            user,
            max_trials=None if trials is None else int(trials),
            max_device_seconds=scaled(amount(request.POST.get("device_hours", ""), "device-hours")),
            max_wall_seconds=scaled(amount(request.POST.get("wall_hours", ""), "hours of search")),
            max_money=None if money is None else Decimal(str(money)),
            max_tokens=None if tokens is None else int(tokens),
        )
        return "The budget is set."
    raise ValueError(f"there is no action {act!r} here; pause, resume or set the budget")


def amount(text: str, name: str, below: float = 1e9) -> float | None:
    """A number that a person typed; None where the field is empty."""
    text = text.strip().replace(",", "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name}: {text[:20]!r} is not a number; leave it empty for no limit") from None
    if not 0 < value < below:
        raise ValueError(f"{name}: a budget must be above 0 and below {below:g}; leave it empty for no limit")
    return value


def scaled(hours: float | None) -> float | None:
    return None if hours is None else hours * HOUR


def _export(project: Project, board: ProjectBoard) -> StreamingHttpResponse:
    """The experiments that the filters leave, as CSV."""
    response = StreamingHttpResponse(_lines(board), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{project.name}-experiments.csv"'
    return response


def _lines(board: ProjectBoard) -> Iterator[str]:
    yield _csv(COLUMNS)
    rows = board.chosen().select_related("candidate__idea", "thread", "verdict")
    for row in rows.defer("rule", "candidate__recipe").iterator(chunk_size=500):
        verdict = getattr(row, "verdict", None)
        gain = gain_of(verdict) if verdict else None
        yield _csv(
            (
                row.number, row.thread.number if row.thread else "", row.purpose,
                row.candidate.idea.hypothesis if row.candidate else "", verdict.kind if verdict else row.state,
                verdict.stage if verdict else "", gain.mean if gain else "", gain.half if gain else "",
                gain.pairs if gain else "", verdict.e_value if verdict else "", row.baseline_commit,
                row.candidate_commit, row.ended.isoformat() if row.ended else "",
            )
        )  # fmt: skip


def _csv(values: tuple[object, ...]) -> str:
    """One line. A text that a spreadsheet would run as a formula is kept from it by an apostrophe."""
    line = io.StringIO()
    safe = [f"'{v}" if isinstance(v, str) and v[:1] in ("=", "+", "-", "@", "\t") else v for v in values]
    csv.writer(line).writerow(safe)
    return line.getvalue()
