"""The experiment page: one comparison with its pairs, curves, guards, surroundings and logs."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from research.models import Experiment, Membership, NotMergeable, Role
from research.tasks import advance_project
from research.views.difftext import FileDiff, files_of
from research.views.evidence_line import evidence_line
from research.views.experiment_board import ExperimentBoard
from research.views.findings import finding_rows
from research.views.pages import checked, go, render_page

TOGETHER = ("project", "thread", "verdict", "candidate__idea", "original__candidate__idea", "original__verdict")


def page(request: HttpRequest, id: str) -> HttpResponse:
    experiment = checked(request, _rows(id))
    return render_page(request, "experiment", _context(request, experiment))


@require_POST
def more_seeds(request: HttpRequest, id: str) -> HttpResponse:
    experiment = checked(request, _rows(id), Role.MEMBER)
    asked = request.POST.get("pairs", "4")
    try:
        replicate = experiment.more_seeds(request.user, pairs=int(asked) if asked.isdigit() and len(asked) < 5 else 0)  # type: ignore[arg-type]
    except NotMergeable as refusal:
        return go(request, reverse("experiment", args=[id]), problem=str(refusal))
    advance_project(experiment.project_id)  # a replicate belongs to no thread; this rings the machines
    said = f"{replicate.wanted_pairs} more pairs are planned; the verdict of #{experiment.number} stays as it is"
    return go(request, reverse("experiment", args=[replicate.public_id]), said=said)


@require_POST
def stop(request: HttpRequest, id: str) -> HttpResponse:
    experiment = checked(request, _rows(id), Role.MEMBER)
    try:
        experiment.stop(request.user, request.POST.get("reason", "").strip()[:2000])  # type: ignore[arg-type]
    except NotMergeable as refusal:
        return go(request, reverse("experiment", args=[id]), problem=str(refusal))
    advance_project(experiment.project_id)  # its thread goes on with something else
    said = f"#{experiment.number} is stopped; what was measured of it stays"
    return go(request, reverse("experiment", args=[id]), said=said)


@require_safe
def log(request: HttpRequest, id: str, trial: str) -> HttpResponseBase:
    """A trial's whole log, as it came, to be saved and never shown by the browser."""
    experiment = checked(request, _rows(id))
    found = experiment.trials.filter(public_id=trial, result__log__isnull=False).select_related("result__log").first()
    if found is None or found.result.log is None:
        raise Http404("this trial left no log")
    try:
        content = found.result.log.path.open("rb")
    except FileNotFoundError as gone:
        raise Http404("the log is no longer in the data folder") from gone
    name = f"{experiment.project.name}-{experiment.number}-{found.name.replace(', ', '-').replace(' ', '-')}.log"
    response = FileResponse(content, as_attachment=True, filename=name, content_type="application/octet-stream")
    response["X-Content-Type-Options"] = "nosniff"
    response["Cache-Control"] = "private, no-store"
    return response


def _rows(id: str) -> QuerySet[Experiment]:
    return Experiment.objects.filter(public_id=id).select_related(*TOGETHER)


def _context(request: HttpRequest, experiment: Experiment) -> dict[str, Any]:
    asked, board = request.GET, ExperimentBoard(experiment)
    metrics, everything = asked.getlist("metric"), asked.get("all") == "1"
    url = request.build_absolute_uri(reverse("experiment", args=[experiment.public_id]))
    others = experiment.project.experiments
    return {
        "experiment": experiment,
        "project": experiment.project,
        "board": board,
        "verdict": board.verdict,
        "running": board.is_running,
        "may_ask": Membership.role_of(request.user, experiment.project) >= Role.MEMBER,  # type: ignore[arg-type]
        "evidence": lambda: evidence_line(experiment, board.verdict, url),
        "before": lambda: others.filter(number__lt=experiment.number).order_by("-number").first(),
        "after": lambda: others.filter(number__gt=experiment.number).order_by("number").first(),
        "curves": lambda: board.curves(metrics, everything),
        "everything": everything,
        "curves_query": urlencode({"part": "curves", "metric": metrics, "all": int(everything)}, doseq=True),
        "log": lambda: board.log(asked.get("log", "")),
        "log_query": urlencode({"part": "log", "log": asked.get("log", "")}),
        "files": lambda: _files(experiment),
        "finding_rows": lambda: finding_rows(experiment, request.user),  # type: ignore[arg-type]
        "file": lambda: _file(_files(experiment), asked.get("n", "")),
    }


def _files(experiment: Experiment) -> list[FileDiff]:
    subject = experiment.subject
    return files_of(subject.diff.patch) if subject and hasattr(subject, "diff") else []


def _file(files: list[FileDiff], number: str) -> FileDiff:
    if not number.isdigit() or len(number) > 5 or int(number) >= len(files):
        raise Http404("no such file in this diff")
    return files[int(number)]
