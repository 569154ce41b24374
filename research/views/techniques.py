"""Techniques that were found here: the list, the request with diff and trial, and what a second person decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from benchmarks.found import constants_of, module_of
from research.loop.memory import catalogue_of
from research.models import Experiment, FoundTechnique, Membership, NotMergeable, Role
from research.models.technique_request import MOST_TUNABLES, may_become_technique
from research.tasks import advance_project
from research.views.difftext import files_of
from research.views.evidence_line import evidence_line
from research.views.pages import checked, go, render_page

NEAR = (
    "project",
    "experiment__verdict",
    "experiment__project",
    "experiment__candidate__idea",
    "proposed_by",
    "decided_by",
)


@require_safe
def listed(request: HttpRequest) -> HttpResponse:
    mine = Membership.projects_of(request.user)  # type: ignore[arg-type]
    rows = FoundTechnique.objects.filter(project__in=mine).select_related("project", "experiment").order_by("-pk")
    return render_page(request, "techniques", {"rows": rows[:200]})


@require_safe
def page(request: HttpRequest, id: str) -> HttpResponse:
    row = _row(request, id)
    return render_page(request, "technique", _context(request, row))


def propose(request: HttpRequest, id: str) -> HttpResponse:
    rows = Experiment.objects.filter(public_id=id).select_related(
        "project", "verdict", "candidate__idea", "candidate__diff"
    )
    posted = request.method == "POST"
    experiment = checked(request, rows, Role.MEMBER if posted else Role.VIEWER)
    if not posted:
        return render_page(request, "technique/new", _asked(experiment))
    sent = {name: request.POST.get(name, "") for name in ("name", "title", "family", "hypothesis")}
    try:
        knobs = _knobs(request)
        project = experiment.project
        taken = set(project.contract.catalogue(project.preset, project.data_path))
        row = FoundTechnique.propose(request.user, experiment, taken, sent, knobs)  # type: ignore[arg-type]
    except (NotMergeable, ValueError) as refusal:
        response = render_page(request, "technique/new", {**_asked(experiment), "sent": sent, "refused": str(refusal)})
        response.status_code = 422
        return response
    advance_project(row.project_id)
    return go(request, reverse("technique", args=[row.public_id]), said="Proposed; a second person decides")


@require_POST
def decide(request: HttpRequest, id: str) -> HttpResponse:
    row = _row(request, id, Role.REVIEWER)
    by, reason = request.user, request.POST.get("reason", "")
    acts: dict[str, tuple[Callable[[], None], str]] = {
        "approve": (lambda: row.approve(by), "It is a technique of this lab now"),  # type: ignore[arg-type]
        "reject": (lambda: row.reject(by, reason), "Rejected"),  # type: ignore[arg-type]
        "return": (lambda: row.ask_for_changes(by, reason), "Changes are asked for"),  # type: ignore[arg-type]
        "retract": (lambda: row.retract(by, reason), "Taken out of the catalogue"),  # type: ignore[arg-type]
    }
    if request.POST.get("act") not in acts:
        raise Http404("approve, reject, return or retract")
    act, said = acts[request.POST["act"]]
    url = reverse("technique", args=[id])
    try:
        act()
    except NotMergeable as refusal:
        return go(request, url, problem=str(refusal))
    advance_project(row.project_id)
    return go(request, url, said=said)


@require_safe
def module(request: HttpRequest, id: str) -> HttpResponse:
    """A Python module to bring it into the lab's own catalogue; to be saved, never run here."""
    row = _row(request, id)
    response = HttpResponse(module_of(row.technique, row.patch), content_type="application/octet-stream")
    response["Content-Disposition"] = f'attachment; filename="{row.name}.py"'
    response["X-Content-Type-Options"] = "nosniff"
    return response


def _row(request: HttpRequest, id: str, role: int = Role.VIEWER) -> FoundTechnique:
    return checked(request, FoundTechnique.objects.filter(public_id=id).select_related(*NEAR), role)


def _context(request: HttpRequest, row: FoundTechnique) -> dict[str, Any]:
    experiment = row.experiment
    url = request.build_absolute_uri(reverse("experiment", args=[experiment.public_id]))
    return {
        "row": row, "project": row.project, "experiment": experiment, "files": lambda: files_of(row.patch),
        "evidence": evidence_line(experiment, getattr(experiment, "verdict", None), url),
        "may_decide": Membership.role_of(request.user, row.project) >= Role.REVIEWER,  # type: ignore[arg-type]
        "stale": bool(row.fit) and row.fit.get("at") != row.project.champion,
    }  # fmt: skip


def _asked(experiment: Experiment) -> dict[str, Any]:
    """The form, filled from the idea; or why there is none."""
    try:
        idea = may_become_technique(experiment)
    except NotMergeable as refusal:
        return {"experiment": experiment, "project": experiment.project, "none": str(refusal)}
    known = FoundTechnique.objects.filter(experiment=experiment).first()
    filled = known or idea
    constants = constants_of(experiment.candidate.diff.patch) if experiment.candidate else {}
    return {
        "experiment": experiment, "project": experiment.project, "known": known,
        "sent": {name: getattr(filled, name, "") for name in ("name", "title", "family", "hypothesis")} if known else
        {"name": "", "title": idea.title, "family": (idea.tags or [""])[0], "hypothesis": idea.hypothesis},
        "constants": list(constants.items())[:MOST_TUNABLES],
        "families": sorted({technique.family for technique in catalogue_of(experiment.project).values()}),
    }  # fmt: skip


def _knobs(request: HttpRequest) -> list[dict[str, Any]]:
    """The constants with a range; those without stay as the change has them. Raises ValueError."""
    sent, knobs = request.POST, []
    for name in sent.getlist("constant"):
        low, high = sent.get(f"low-{name}", "").strip(), sent.get(f"high-{name}", "").strip()
        if low or high:
            try:
                range_ = {"low": float(low), "high": float(high)}
            except ValueError:
                raise ValueError(f"the range of {name[:40]} needs two numbers") from None
            knobs.append({"name": name, **range_, "log": f"log-{name}" in sent, "integer": f"integer-{name}" in sent})
    return knobs
