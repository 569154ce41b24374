"""Machines: who measures, what runs there now, how busy each slot was, and how well candidates are fenced in."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from research.views.machines_board import MachinesBoard
from research.views.pages import render_page


def page(request: HttpRequest) -> HttpResponse:
    board = MachinesBoard(request.user)  # type: ignore[arg-type]  # LoginRequiredMiddleware
    return render_page(request, "machines", {"board": board})
