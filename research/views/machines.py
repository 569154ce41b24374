"""Machines: who measures, what runs there now, how busy each slot was, and how well candidates are fenced in."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_POST

from research.models import Machine, NotAllowed
from research.views.machines_board import MachinesBoard
from research.views.pages import go, render_page


def page(request: HttpRequest) -> HttpResponse:
    board = MachinesBoard(request.user)  # type: ignore[arg-type]  # LoginRequiredMiddleware
    return render_page(request, "machines", {"board": board})


@require_POST
def override(request: HttpRequest, id: str) -> HttpResponse:
    """Let code from outside the lab run without a sandbox on a machine, or no longer."""
    machine, allowed = get_object_or_404(Machine, public_id=id), request.POST.get("allowed") == "yes"
    try:
        machine.override(request.user, allowed)  # type: ignore[arg-type]
    except NotAllowed as refused:
        raise PermissionDenied(str(refused)) from refused
    said = "runs untrusted code without a sandbox" if allowed else "runs no untrusted code without a sandbox"
    return go(request, reverse("machines"), said=f"{machine} {said}.")
