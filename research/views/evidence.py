"""The evidence page of a verdict: what it rests on, look by look; live while the experiment runs."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from research.models import Experiment
from research.views.evidence_board import EvidenceBoard
from research.views.evidence_line import evidence_line
from research.views.pages import checked, render_page

TOGETHER = (
    "project", "thread", "verdict", "candidate__idea", "candidate__diff", "original__candidate__idea",
    "original__candidate__diff", "original__verdict",
)  # fmt: skip


def page(request: HttpRequest, id: str) -> HttpResponse:
    experiment = checked(request, Experiment.objects.filter(public_id=id).select_related(*TOGETHER))
    board = EvidenceBoard(experiment, request.user)  # type: ignore[arg-type]  # the lab's users are auth.User
    link = request.build_absolute_uri(reverse("evidence", args=[id]))

    def line() -> str:  # looked up by the part that shows it
        return evidence_line(experiment, board.verdict, link)

    context = {"experiment": experiment, "project": experiment.project, "board": board, "line": line}
    return render_page(request, "evidence", context)
