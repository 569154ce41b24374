"""What a model may ask the lab while it works on a session: a desk over the rows. Every answer is bounded text.

Numbers come from verdicts and results, never from a validation split that nothing has been judged on. Logs and names
of metrics were written by untrusted code: they are cleaned here, and quoted as data by whoever shows them to a model.
"""

from __future__ import annotations

import math

from django.db import models

from benchmarks.syntax import parse
from research.logtext import tail
from research.models import Experiment, Project, Series, Trial, Verdict

LESSONS, RESULTS, LOG_LINES, POINTS = 12, 30, 80, 24
LINE = 400  # characters of one line of a list


class RowDesk:
    """The desk of a project's sessions. It answers for this project and for no other."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def lessons(self, query: str) -> str:
        """The newest lessons that hold any of these words; the newest of all where none is given."""
        words = query.lower().split()[:12]
        found = []
        for lesson in self.project.lessons.filter(retracted=False).order_by("-pk").select_related("experiment")[:500]:
            if not words or any(word in lesson.text.lower() for word in words):
                where = f"experiment {lesson.experiment.number}" if lesson.experiment else "a person"
                found.append(f"- {where}, {lesson.get_kind_display().lower()}: {lesson.text}"[:LINE])
            if len(found) == LESSONS:
                break
        return "\n".join(found) or "no lesson says anything about that"

    def results(self, limit: int) -> str:
        """The newest verdicts of the project: what was tried, and what came of it."""
        verdicts = Verdict.objects.filter(
            experiment__project=self.project, experiment__purpose=Experiment.Purpose.COMPARE
        ).order_by("-pk")
        rows = verdicts.select_related("experiment__candidate__idea")[: max(1, min(limit, RESULTS))]
        return "\n".join(result_line(verdict) for verdict in rows) or "nothing has been measured yet"

    def log(self, experiment_number: int) -> str:
        """The end of the candidate's log: of the first trial that failed, else of the newest."""
        trials = self._trials(experiment_number).filter(result__log__isnull=False).select_related("result__log")
        trial = trials.exclude(result__failure="").first() or trials.last()
        if trial is None or trial.result.log is None:
            return f"experiment {experiment_number} left no log"
        try:
            lines, more = tail(trial.result.log.path, LOG_LINES)
        except FileNotFoundError:
            return f"the log of experiment {experiment_number} is no longer in the data folder"
        failure = f"; it failed: {trial.result.failure}, {trial.result.message}"[:LINE] if trial.result.failure else ""
        head = f"{trial.name}{failure}. The {'last ' if more else ''}{len(lines)} lines of its log:"
        return "\n".join([head, *(line[:LINE] for line in lines)])

    def curve(self, experiment_number: int, metric: str) -> str:
        """A metric of both arms of the newest pair, in a few steps."""
        series = Series.objects.newest().filter(trial__in=self._trials(experiment_number, both=True))
        names = sorted(set(series.values_list("metric", flat=True)))
        if metric not in names:
            known = ", ".join(names)[:LINE] or "none"
            return f"experiment {experiment_number} has no curve {metric[:80]!r}; it has {known}"
        found = []
        for arm in (Trial.Arm.BASELINE, Trial.Arm.CANDIDATE):
            mine = series.filter(metric=metric, trial__arm=arm).select_related("trial").order_by("-trial").first()
            if mine is not None:
                found.append(f"{arm}, {mine.trial.name}: {_points(mine)}")
        return "\n".join(found)

    def check(self, sources: dict[str, str]) -> str:
        """Whether every changed file is valid Python."""
        for path, text in sorted(sources.items()):
            if path.endswith(".py"):
                try:
                    parse(text, path)
                except (SyntaxError, ValueError) as error:
                    line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
                    return f"{path}{line}: {getattr(error, 'msg', error)}"
        return "every file is valid Python; nothing was run"

    def _trials(self, number: int, both: bool = False) -> models.QuerySet[Trial]:
        trials = Trial.objects.filter(experiment__project=self.project, experiment__number=number).order_by("pk")
        return trials if both else trials.filter(arm=Trial.Arm.CANDIDATE)


def result_line(verdict: Verdict) -> str:
    """One verdict in one line: number, what it was, gain with its interval, why."""
    experiment = verdict.experiment
    name = experiment.candidate.idea.name if experiment.candidate else experiment.label
    gain = "" if verdict.relative is None else f" {verdict.relative:+.2%}"
    kind = str(verdict.kind).replace("_", " ") + (", a near miss" if verdict.near_miss else "")
    return f"- experiment {experiment.number}: {name}: {kind}{gain}. {verdict.reason}"[:LINE]


def _points(series: Series) -> str:
    found = series.buckets(POINTS)
    pairs = zip(found.last_step.tolist(), found.last.tolist(), strict=True)
    return ", ".join(f"{step}: {value:.4g}" if math.isfinite(value) else f"{step}: {value}" for step, value in pairs)
