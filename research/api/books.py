"""The books of a project as a token may see them: facts, threads, budget, costs, standing, merges, forecasts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

from django.db.models import Avg, Count, Sum

from research.api.measured import effect_of
from research.api.reading import MOST, project_line, project_of, thread_of
from research.api.schemas import (
    Costs,
    Directive,
    ForecastLine,
    Forecasts,
    MergeLine,
    ProjectFacts,
    Spent,
    Standing,
    ThreadFacts,
    ThreadLine,
)
from research.loop.account import of_thread
from research.loop.floors import relative_sigma
from research.models import ApiToken, Experiment, Idea, MergeRequest, Project, Result, Thread
from research.models.asked import lines_of
from research.models.machine import SCREENING
from research.validation.predictions import predicted
from research.validation.records import Rule, Stage, VerdictKind
from research.validation.words import rule_words

NEWEST_TRIALS = 200  # what a trial costs is read off these
COMBINATION = "combination"
WAITS = {True: "merged by policy as soon as it stands on main", False: "waits for a reviewer"}


def project(token: ApiToken, name: str) -> ProjectFacts:
    return facts_of(project_of(token, name))


def facts_of(found: Project) -> ProjectFacts:
    contract, sizes, rule = found.contract, found.sizes, Rule.from_json(found.rule)
    commits = dict.fromkeys((found.start_commit, found.champion))
    return ProjectFacts(
        **project_line(found), start=found.start, start_commit=found.start_commit, problems=found.problems,
        editable=list(contract.editable),
        protected=list(contract.protected), budget_seconds=sizes.budget_seconds, clock=sizes.clock,
        noise=relative_sigma(found) if found.trials.filter(result__isnull=False).exists() else None,
        rule=str(found.rule.get("name", "funnel")), rule_says=rule_words(rule), state_reason=found.state_reason,
        merges_by="policy" if found.auto_approve else "person", spent=spent_of(found), costs=costs_of(found),
        standing=[standing_of(found, commit) for commit in commits],
        threads=[ThreadLine(**_thread(thread)) for thread in found.threads.order_by("number")],
    )  # fmt: skip


def _thread(found: Thread) -> dict[str, Any]:
    claim = getattr(found, "claim", None)
    if claim is not None and not claim.holds:
        claim = None
    running = found.experiments.running().values_list("public_id", flat=True).first()
    return {
        "id": found.public_id, "project": found.project.name, "number": found.number, "researcher": found.researcher,
        "state": found.state, "head": found.head, "claimed_by": claim.token.name if claim else "",
        "claimed_until": claim.until if claim else None, "waiting": found.ideas.ahead().count(),
        "running": running or "",
    }  # fmt: skip


def thread(token: ApiToken, id: str) -> ThreadFacts:
    found = thread_of(token, id)
    results = Result.objects.filter(trial__experiment__thread=found)
    asked = found.directives
    labels = {name: asked.get(name, []) for name in ("focus", "forbid")}
    wanted = Directive(**labels, note=asked.get("note", ""), said=lines_of(asked))
    improved = found.experiments.filter(verdict__kind=str(VerdictKind.IMPROVED))
    return ThreadFacts(
        **_thread(found), directives=wanted, trials=results.count(),
        device_seconds=results.aggregate(total=Sum("device_seconds"))["total"] or 0.0, confirmed_gains=improved.count(),
        standing=standing_of(found.project, found.head),
    )  # fmt: skip


def spent_of(project: Project) -> Spent:
    trials, seconds = project.spent()
    return Spent(
        trials=trials, device_seconds=seconds, wall_seconds=project.wall_seconds, max_trials=project.max_trials,
        max_device_seconds=project.max_device_seconds, max_wall_seconds=project.max_wall_seconds,
        trials_left=None if project.max_trials is None else max(0, project.max_trials - trials),
        device_seconds_left=_left(project.max_device_seconds, seconds),
        wall_seconds_left=_left(project.max_wall_seconds, project.wall_seconds),
    )  # fmt: skip


def _left(limit: float | None, used: float) -> float | None:
    return None if limit is None else max(0.0, limit - used)


def costs_of(project: Project) -> Costs:
    """What changes have cost until their verdict, by how far they came; and what the lab measured of its own."""
    mine = Result.objects.filter(trial__project=project)
    newest = list(mine.order_by("-pk").values_list("device_seconds", flat=True)[:NEWEST_TRIALS])
    by = "trial__experiment"
    rows = mine.order_by().values_list(
        by, f"{by}__purpose", f"{by}__candidate__idea__kind", f"{by}__verdict__stage"
    ).annotate(total=Sum("device_seconds"))  # fmt: skip
    lab: dict[str, float] = defaultdict(float)
    changes, ended = 0.0, defaultdict(list)
    for _, purpose, kind, stage, total in rows:
        if purpose != Experiment.Purpose.COMPARE or kind in (None, Idea.Kind.COMBINATION):
            lab[COMBINATION if kind == Idea.Kind.COMBINATION else str(purpose)] += total
            continue
        changes += total
        if stage:
            ended[stage == str(Stage.CONFIRM)].append(total)
    return Costs(
        trial=_median(newest), screened=_median(ended[False]), confirmed=_median(ended[True]), changes=changes,
        lab=dict(sorted(lab.items())),
    )  # fmt: skip


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def standing_of(project: Project, commit: str) -> Standing:
    """The mean score of a commit, over whatever it was measured for: where it stands, and no evidence of anything.

    Of many problems, none: its trials measured different ones, and their scores have no mean.
    """
    scored = Result.objects.filter(trial__project=project, trial__commit=commit, score__isnull=False)
    found = scored.exclude(trial__stage__in=SCREENING).aggregate(mean=Avg("score"), count=Count("pk"))
    return Standing(commit=commit, score=None if project.problems else found["mean"], trials=found["count"])


def merges(token: ApiToken, name: str, limit: int = 30) -> list[MergeLine]:
    """Confirmed gains and what became of them, newest first."""
    found = project_of(token, name)
    on_main = {request.pk for request in MergeRequest.objects.line(found)}
    related = ("thread", "candidate__idea", "verdict__experiment", "decided_by")
    rows = found.merge_requests.select_related(*related).order_by("-pk")[: max(1, min(limit, MOST))]
    return [_merge(row, found, row.pk in on_main) for row in rows]


def _merge(row: MergeRequest, project: Project, on_main: bool) -> MergeLine:
    reason = row.reason
    if row.state == MergeRequest.State.OPEN:
        look = "a finding asks for a person's look; " if row.needs_a_look else ""
        reason = look + WAITS[project.auto_approve and not look]
    who = "policy" if row.decided_by_policy else str(row.decided_by or "")
    return MergeLine(
        id=row.public_id, state=row.state, on_main=on_main, thread=row.thread.number,
        experiment=row.verdict.experiment.public_id, title=row.candidate.idea.name, effect=effect_of(row.verdict),
        base=row.base, commit=row.commit, decided_by=who, decided=row.decided, reason=reason,
    )  # fmt: skip


def forecasts(token: ApiToken, id: str) -> Forecasts:
    """Predictions of a thread's ideas beside what was measured: an agent's own score."""
    thread = thread_of(token, id)
    mine = [one for one in of_thread(thread) if one.experiment and one.who != COMBINATION]
    numbers = [one.experiment for one in mine if one.experiment]
    rows = thread.project.experiments.filter(number__in=numbers).select_related("candidate__idea")
    named: dict[int | None, Experiment] = {row.number: row for row in rows}
    score = predicted("", mine)
    lines = [
        ForecastLine(
            experiment=named[one.experiment].public_id, title=_title(named[one.experiment]), expected=one.predicted,
            measured=one.measured, outcome=str(one.outcome),
        )
        for one in mine[::-1][:MOST]
        if one.experiment in named
    ]  # fmt: skip
    return Forecasts(
        thread=thread.public_id, scored=score.scored, bias=score.bias, error=score.error, order=score.order, ideas=lines
    )


def _title(row: Experiment) -> str:
    return row.candidate.idea.name if row.candidate else row.label
