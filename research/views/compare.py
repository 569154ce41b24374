"""The compare page: experiments side by side, chosen by address."""

from __future__ import annotations

import csv
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse

from research.models import Membership
from research.views.compare_board import CompareBoard
from research.views.pages import render_page


def page(request: HttpRequest) -> HttpResponse:
    ids = [id for text in request.GET.getlist("e") for id in text.split(",") if id][:32]
    everything = request.GET.get("all") == "1"
    seen = Membership.projects_of(request.user)  # type: ignore[arg-type]  # LoginRequiredMiddleware
    board = CompareBoard(seen, ids, everything, request.GET.getlist("metric"))
    if request.GET.get("format") == "csv":
        return _csv(board)
    return render_page(request, "compare", _context(request, board, ids, everything))


def _context(request: HttpRequest, board: CompareBoard, ids: list[str], everything: bool) -> dict[str, Any]:
    chosen = ",".join(ids)
    query = request.GET.get("q", "").strip()[:100]
    keep = {"e": chosen, **({"all": 1} if everything else {})}
    return {
        "board": board,
        "chosen": chosen,
        "everything": everything,
        "query": query,
        "suggested": lambda: board.suggested(query),
        "adding": f"{chosen}," if chosen else "",
        "base": f"{request.path}?{urlencode({'e': chosen}, safe=',')}",
        "keep": urlencode({**keep, "metric": board.metrics}, safe=",", doseq=True),
        "topics": lambda: " ".join(f"experiment:{column.experiment.public_id}" for column in board.columns),
    }


def _csv(board: CompareBoard) -> HttpResponse:
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="compare.csv"'
    csv.writer(response).writerows([_cell(cell) for cell in row] for row in board.table)
    return response


def _cell(text: str) -> str:
    """A spreadsheet takes some first characters for a formula; numbers keep their plain sign."""
    text = text.replace("\N{MINUS SIGN}", "-")
    plain = text.lstrip("+-").removesuffix(" %").replace(".", "", 1)
    return f"'{text}" if text[:1] in "=+-@\t\r" and text[:1] and not plain.isdigit() else text
