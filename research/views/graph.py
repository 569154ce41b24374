"""The idea graph of a project: what was tried on what, what moved a head, what landed on `main`."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse

from research.views.graph_board import GraphBoard
from research.views.graph_node import node_board
from research.views.pages import project_for, render_page


def page(request: HttpRequest, name: str) -> HttpResponse:
    project = project_for(request, name)
    board = GraphBoard(project, request.GET)
    chosen = node_board(project, board.chosen)
    if board.chosen and chosen is None:
        raise Http404("the graph of this project has no such node")
    context = {"project": project, "board": board, "node": chosen}
    return render_page(request, "graph", context)
