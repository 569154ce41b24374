"""One problem of the kernel board, closer: its times trial by trial, its workloads, checks, experiments and change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from django.db.models import Q, QuerySet
from django.http import Http404, QueryDict
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe

from benchmarks.kernels.cells import CellTimes, cells
from benchmarks.kernels.score import geometric_mean
from research.drawing.latencies import Line, latencies
from research.models import Experiment, Finding, Result
from research.repository import GitError, Repository
from research.views.difftext import FileDiff, files_of
from research.views.gain import Gain, gain_of
from research.views.kernels_board import Confirmed, KernelBoard, Row
from research.views.kernels_values import Place, Show, cell_text, mark, speedup_text, time_text

EXPERIMENTS = 12  # the newest that are listed, and whose trials are drawn
TRIALS, DOTS, THREADS = 300, 40, 5
SEVERE = ("structural", "review", "info")


@dataclass(frozen=True)
class Tried:
    experiment: Experiment
    gain: Gain | None

    @property
    def outcome(self) -> str:
        verdict = getattr(self.experiment, "verdict", None)
        return verdict.kind if verdict else self.experiment.state


@dataclass(frozen=True)
class Workload:
    """One row of the table of workloads, as texts."""

    axes: str
    href: str
    chosen: bool
    reference: str
    latency: str
    bound: str
    speedup: str
    score: str
    mark: str
    why: str


@dataclass(frozen=True)
class Trial:
    commit: str
    times: dict[str, CellTimes]


def problem_of(board: KernelBoard, asked: QueryDict) -> Problem | None:
    """The chosen one; None where none is. 404 for a name that no problem has."""
    if not board.chosen:
        return None
    row = next((row for row in board.rows if row.name == board.chosen), None)
    if row is None:
        raise Http404("the benchmark of this project has no such problem")
    return Problem(board, row, asked.get("w", ""))


class Problem:
    def __init__(self, board: KernelBoard, row: Row, workload: str) -> None:
        self.board, self.row, self.project, self.reading = board, row, board.project, board.reading
        self.workload = workload if any(place.uuid == workload for place in row.now.places) else ""

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def axes(self) -> str:
        """Of the chosen workload, in words."""
        return self.row.known.axes(self.workload) if self.workload else ""

    @property
    def here(self) -> str:
        return self.board.address(w=self.workload)

    @property
    def every(self) -> str:
        """The address that shows all workloads together."""
        return self.board.address()

    # ---- times --------------------------------------------------------------------------------------------------

    @property
    def workloads(self) -> list[Workload]:
        return [self._workload(place) for place in self.row.now.places]

    def _workload(self, place: Place) -> Workload:
        times, (glyph, why) = place.times, mark(place)
        reference = times.reference_ms if times else place.reference_ms
        bound = times.bound_ms if times else None
        return Workload(
            self.row.known.axes(place.uuid), self.board.address(w=place.uuid), place.uuid == self.workload,
            time_text(reference) if reference else "–", time_text(times.latency_ms) if times else "–",
            time_text(bound) if bound else "–", speedup_text(place.speedup),
            cell_text(place, Show.SCORE) if place.score is not None else "–", glyph, why,
        )  # fmt: skip

    @cached_property
    def trials(self) -> list[Trial]:
        """Of the experiments shown, of their replicates and of what put the code on main; the newest first.

        And the one that main's cells are of: a floor's, or that of a champion against itself, changes no problem.
        """
        main = self.board.main[self.name]
        newest = self.reading.measured(self.name, main)
        shown = Q(pk__in=[row.experiment.pk for row in self.experiments]) | Q(candidate__commit=main)
        of = Experiment.objects.filter(shown, project=self.project).values("pk")
        wanted = Q(trial__experiment__in=of) | Q(trial__experiment__original__in=of)
        results = Result.objects.filter(wanted | Q(pk=newest.result) if newest else wanted)
        rows = results.order_by("-pk").values_list("trial__commit", "metrics")[:TRIALS]
        found = ((commit, cells(metrics).get(self.name)) for commit, metrics in rows)
        return [Trial(commit, times) for commit, times in found if times]

    @property
    def drawing(self) -> SafeString:
        lines = [
            self._line("reference", "reference", self.trials, reference=True),
            self._line("main", "main", self._with(self.board.main[self.name])),
            *(
                self._line(f"t-{thread} #{number}", "thread", self._with(code))
                for thread, number, code in self._threads
            ),
        ]
        bounds = [cell.bound_ms for trial in self.trials[:1] for cell in self._chosen(trial) if cell.bound_ms]
        return mark_safe(latencies([line for line in lines if line.times], geometric_mean(bounds)))  # noqa: S308

    @property
    def _threads(self) -> list[tuple[int, int, str]]:
        """(thread, experiment, code) of the newest candidate of each thread, where it is not what main has."""
        found: dict[int, tuple[int, int, str]] = {}
        for row in self.experiments:
            thread, candidate = row.experiment.thread, row.experiment.candidate
            if thread is None or candidate is None:
                continue
            code = self.reading.code(candidate.commit, self.name)
            if code != self.board.main[self.name]:
                found.setdefault(thread.number, (thread.number, row.experiment.number, code))
        return sorted(found.values())[:THREADS]

    def _with(self, code: str) -> list[Trial]:
        return [trial for trial in self.trials if self.reading.code(trial.commit, self.name) == code]

    def _chosen(self, trial: Trial) -> list[CellTimes]:
        if self.workload:
            return [trial.times[self.workload]] if self.workload in trial.times else []
        return list(trial.times.values())

    def _line(self, label: str, kind: str, trials: Iterable[Trial], reference: bool = False) -> Line:
        means = (
            geometric_mean([cell.reference_ms if reference else cell.latency_ms for cell in self._chosen(trial)])
            for trial in trials
        )
        return Line(label, kind, tuple(value for value in means if value)[:DOTS])

    # ---- experiments --------------------------------------------------------------------------------------------

    @cached_property
    def experiments(self) -> list[Tried]:
        """The newest that change this problem, newest first."""
        rows = self._changing().select_related("candidate__idea", "thread", "verdict")
        rows = rows.defer("rule", "candidate__recipe", "candidate__idea__steps").order_by("-number")[:EXPERIMENTS]
        return [Tried(row, gain_of(row.verdict) if hasattr(row, "verdict") else None) for row in rows]

    def _changing(self) -> QuerySet[Experiment]:
        commits = self.reading.commits_of(self.name)
        return Experiment.objects.filter(project=self.project, candidate__commit__in=commits)

    @cached_property
    def findings(self) -> list[Finding]:
        """Of the experiments shown, the gravest first."""
        shown = [row.experiment.pk for row in self.experiments]
        rows = Finding.objects.filter(experiment__in=shown).select_related("experiment").order_by("-pk")
        return sorted(rows, key=lambda row: SEVERE.index(row.severity))

    @cached_property
    def to_time_again(self) -> Confirmed | None:
        """The newest confirmed experiment: more seeds of it are what re-timing asks for."""
        mine = [row for row in self.board.confirmed if self.name in self.reading.changed(row.commit)]
        return mine[-1] if mine else None

    @property
    def time_again(self) -> str:
        return reverse("more-seeds", args=[self.to_time_again.experiment]) if self.to_time_again else ""

    # ---- change -------------------------------------------------------------------------------------------------

    @property
    def changed_by(self) -> str:
        """Whose change is shown: main's, or that of the best thread where main has the start's code; or nobody's."""
        if self.board.main[self.name] in self.reading.changes:
            return "main"
        return f"thread {self.row.best[0].thread}" if self.row.best else ""

    @cached_property
    def files(self) -> list[FileDiff]:
        if not self.changed_by:
            return []
        head = self.project.champion if self.changed_by == "main" or not self.row.best else self.row.best[0].commit
        try:
            patch = _patch(self.project.repository_path, self.project.start_commit, head, self.name)
        except GitError:
            return []
        return files_of(patch)


@lru_cache(maxsize=64)
def _patch(repository: Path, base: str, head: str, folder: str) -> str:
    return Repository(repository).diff(base, head, folder).patch
