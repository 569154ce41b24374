"""What the gains of a project are worth: combinations beside their parts, ablations, promises; and asking for one."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST

from research import tasks
from research.models import Ablation, NotMergeable, Role
from research.views.pages import go, project_for, render_page
from research.views.results_board import ResultsBoard
from research.views.worth_board import WorthBoard


def page(request: HttpRequest, name: str) -> HttpResponse:
    project = project_for(request, name)
    board = WorthBoard(project, request.user)  # type: ignore[arg-type]  # the lab's users are auth.User
    return render_page(request, "worth", {"project": project, "board": board, "results": ResultsBoard(project)})


@require_POST
def ablate(request: HttpRequest, name: str) -> HttpResponse:
    """Ask what each change of the champion is worth."""
    project = project_for(request, name, Role.MEMBER)
    asked, here = request.POST.get("pairs", ""), reverse("worth", args=[name])
    try:
        ablation = Ablation.ask(project, request.user, int(asked) if asked.isdecimal() and len(asked) < 4 else 0)  # type: ignore[arg-type]
    except NotMergeable as refusal:
        return go(request, here, problem=str(refusal))
    tasks.advance_project(project.pk)
    words = f"each change of {ablation.champion[:7]} left out, {ablation.pairs} pairs each"
    if ablation.ended:
        return go(request, here, said=f"Measured already: {words}. Another number of pairs measures it anew.")
    return go(request, here, said=f"Measuring: {words}.")
