"""What a model may ask the lab while it works on a session: a desk over the rows. Every answer is bounded text.

Numbers come from verdicts and results, never from a validation split that nothing has been judged on. Logs and names
of metrics were written by untrusted code: they are cleaned here, and quoted as data by whoever shows them to a model.
"""

from __future__ import annotations

import hashlib
import math
from datetime import datetime, timedelta

from django.db import models
from django.utils import timezone

from benchmarks.catalogue import Sources
from research.logtext import tail
from research.loop.check import CheckRefused, CheckResult, begin_check, check_result, commit_to_check, refuse_unparsed
from research.loop.recall import lessons_text, recall
from research.models import Experiment, Project, Series, Trial, Verdict
from research.researchers.llm.desk import Waiting

RESULTS, LOG_LINES, POINTS = 30, 80, 24
PATIENCE = timedelta(minutes=10)  # for a machine that is free to check
LINE = 400  # characters of one line of a list


class RowDesk:
    """The desk of one session, or of its opening. It answers for one project and for no other."""

    def __init__(self, project: Project, base: str, key: str = "", when: datetime | None = None) -> None:
        self.project, self.base, self.key, self.when = project, base, key, when or project.created

    def lessons(self, query: str) -> str:
        """What matters of all that was learned, for these words and the code in hand."""
        return lessons_text(recall(self.project, query, self.base), self.project)

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

    def check(self, sources: Sources) -> str | Waiting:
        """Whether the changed files run at all: parsed here, then run for a moment in the sandbox of a machine."""
        if not sources:
            return "nothing is changed yet"
        content = "".join(f"{path}\0{text}\0" for path, text in sorted(sources.items()))
        key = f"{self.key}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"
        try:
            refuse_unparsed(sources)
            if not self.project.sizes.check:
                return "every file is valid Python; this benchmark has no short run to try it with"
            experiment = Experiment.every.filter(key=f"check-{key}").first() or begin_check(
                self.project, key, commit_to_check(self.project, key, self.base, sources, self.when)
            )
        except CheckRefused as refused:
            return str(refused)
        result = check_result(experiment)
        if result is not None:
            return _outcome(result)
        if timezone.now() - experiment.created < PATIENCE:
            return Waiting()
        experiment.cancel()
        return "every file is valid Python; no machine was free to run it for a moment"

    def _trials(self, number: int, both: bool = False) -> models.QuerySet[Trial]:
        trials = Trial.objects.filter(experiment__project=self.project, experiment__number=number).order_by("pk")
        return trials if both else trials.filter(arm=Trial.Arm.CANDIDATE)


def _outcome(result: CheckResult) -> str:
    curve = ", ".join(f"{step}: {value:.4g}" for step, value in result.curve)
    head = "it runs" if result.ok else f"it does not run: {result.failure}: {result.message}"
    return "\n".join([head, f"{result.steps} steps; training loss by step: {curve or 'none'}", result.log_tail]).strip()


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
