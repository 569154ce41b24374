"""The kernel board: every problem of a benchmark of many with its workloads, and one problem closer."""

from __future__ import annotations

from functools import cached_property, lru_cache

from django.http import Http404, HttpRequest, HttpResponse
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_safe

from research.drawing.roofline import Spot, roofline
from research.models import Membership, Project, Role
from research.views.kernels_board import KernelBoard
from research.views.kernels_map import HeatMap, legend
from research.views.kernels_problem import Problem, problem_of
from research.views.pages import project_for, render_page


@require_safe
def page(request: HttpRequest, name: str) -> HttpResponse:
    project = project_for(request, name)
    shown = KernelPage(project, request)
    if not shown.board.known:
        raise Http404("the benchmark of this project has no problems")
    if request.GET.get("part") == "map" and request.GET.get("have") == shown.map.key:
        return HttpResponse(status=204)  # 4,000 cells that have not changed
    return render_page(request, "kernels", {"project": project, "board": shown.board, "shown": shown})


class KernelPage:
    """The parts of the page, each made when a template asks."""

    def __init__(self, project: Project, request: HttpRequest) -> None:
        self.project, self.request = project, request
        self.board = KernelBoard(project, request.GET)

    @cached_property
    def map(self) -> HeatMap:
        return HeatMap(self.board, self.request.GET.get("have", "") if self.request.GET.get("part") else "")

    @property
    def legend(self) -> SafeString:
        return legend()

    @property
    def roofline(self) -> SafeString:
        spots = (
            Spot(row.name, *bounded, self.board.toward(row.name), row.name == self.board.chosen)
            for row in self.board.rows
            if (bounded := row.now.bounded)
        )
        return mark_safe(_drawn(tuple(spots)))  # noqa: S308  it escapes

    @cached_property
    def problem(self) -> Problem | None:
        return problem_of(self.board, self.request.GET)

    @property
    def may_ask(self) -> bool:
        return Membership.role_of(self.request.user, self.project) >= Role.MEMBER  # type: ignore[arg-type]


@lru_cache(maxsize=16)  # of 235 problems it is 90 kB
def _drawn(spots: tuple[Spot, ...]) -> str:
    return roofline(spots)
