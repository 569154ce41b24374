"""Findings as a person sees them, and their override: on the merge page and on the experiment page."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import AbstractUser
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST

from research import tasks
from research.models import Experiment, Finding, MergeRequest, NotMergeable, Role
from research.validation.records import Severity
from research.views.pages import checked, go

ORDER = (Severity.STRUCTURAL, Severity.REVIEW, Severity.INFO)
LONGEST = 2_000  # characters of a reason


@dataclass(frozen=True)
class FindingRow:
    finding: Finding
    refusal: str  # why this person cannot override it; empty where they can

    @property
    def stands(self) -> bool:
        """It forbids a merge."""
        return self.finding.severity == Severity.STRUCTURAL or self.asks

    @property
    def asks(self) -> bool:
        return self.finding.can_be_overridden and self.finding.overridden_at is None


def finding_rows(experiment: Experiment, user: AbstractUser) -> list[FindingRow]:
    """The gravest first."""
    found = experiment.findings.select_related("trial", "overridden_by", "experiment__project").order_by("pk")
    rows = [FindingRow(finding, _refusal(finding, user)) for finding in found]
    return sorted(rows, key=lambda row: ORDER.index(Severity(row.finding.severity)))


def _refusal(finding: Finding, user: AbstractUser) -> str:
    try:
        finding.may_override(user)  # type: ignore[arg-type]  # the lab's users are auth.User
    except NotMergeable as refusal:
        return str(refusal)
    return ""


@require_POST
def decide(request: HttpRequest, pk: int) -> HttpResponse:
    """Override a finding, or let it stand again; back to the page it was asked from."""
    finding = checked(request, Finding.objects.filter(pk=pk).select_related("experiment__project"), Role.REVIEWER)
    acts = {"override": finding.override, "reinstate": finding.reinstate}
    act = acts.get(request.POST.get("act", ""))
    if act is None:
        raise Http404("there is no such decision")
    here = _page_of(finding, request.POST.get("on", ""))
    try:
        act(request.user, request.POST.get("reason", "")[:LONGEST])  # type: ignore[arg-type]
    except NotMergeable as refusal:
        return go(request, here, problem=f"Nothing was changed: {refusal}")
    if finding.experiment.thread_id:
        tasks.advance_thread(finding.experiment.thread_id)  # a policy may have waited for it
    said = "The finding is overridden." if finding.overridden_at else "The finding stands again."
    return go(request, here, said=said)


def _page_of(finding: Finding, on: str) -> str:
    row = MergeRequest.objects.filter(verdict__experiment=finding.experiment_id).first() if on == "request" else None
    if row is not None:
        return f"{reverse('merge-request', args=[row.public_id])}#findings"
    return f"{reverse('experiment', args=[finding.experiment.public_id])}#findings"
