"""A project's record from its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any

from django.db.models import Count, Sum

from benchmarks.catalogue import is_change
from research.loop.floors import of_all_classes, screening
from research.loop.memory import catalogue_of, changes
from research.loop.screens import points_of, relation_of
from research.management.record import FORMAT, Record, beside
from research.management.record.commands import commands_of
from research.management.record.withheld import lines_of
from research.management.results import results
from research.management.summary import summary
from research.models import Candidate, Experiment, Idea, MergeRequest, Project, Result, Verdict
from research.repository import Repository
from research.views.frontier import Rise, frontier_of

PACKAGES = ("torch", "triton", "numpy", "safetensors")


def record_of(project: Project) -> Record:
    """All of it; scores are in the metric's unit, gains too, positive is better; seconds are wall seconds."""
    project.refresh_from_db()
    metric, floors = project.contract.metric, {name: screening(project, name) for name in project.measured_presets}
    experiments = project.experiments.filter(verdict__isnull=False)
    merges = MergeRequest.objects.line(project)
    relation, withheld = relation_of(project), project.withheld
    return {
        "format": FORMAT,
        "project": {
            "name": project.name, "benchmark": project.benchmark, "preset": project.preset,
            "budget_seconds": project.sizes.budget_seconds, "screen_preset": project.screen_preset,
            "start": project.start, "start_commit": project.start_commit, "start_tree": project.start_tree,
            "data_id": project.data_id, "created": project.created.date().isoformat(),
            "researchers": sorted(set(project.threads.values_list("researcher", flat=True))),
            "metric": {"name": metric.name, "unit": metric.unit, "lower_is_better": metric.lower_is_better},
        },
        "withheld": withheld,
        "commands": commands_of(project),
        "surroundings": surroundings(project),
        "rule": project.rule,
        "noise_floors": {name: floor.record().to_json() for name, floor in floors.items() if floor},
        "floors_by_class": [
            {"preset": name, "machine_class": floor.machine_class, **floor.record().to_json()}
            for name in project.measured_presets
            for floor in of_all_classes(project, name)
        ],
        "summary": summary(project),
        "closing": beside.closing(project),
        "results": results(project),
        "fidelity": {
            "points": [point.to_json() for point in points_of(project)],
            "relation": relation.to_json() if relation else None,
        },
        "champion": champion(project, merges, withheld),
        "merges": [merge(request) for request in merges],
        "frontier": frontier(project),
        "verdicts": [verdict(row, merges, withheld) for row in judged(experiments)],
        "curves": beside.curves(project, merges),
    }  # fmt: skip


def judged(experiments: Any) -> list[Verdict]:
    rows = Verdict.objects.filter(experiment__in=experiments)
    rows = rows.select_related("experiment__project", "experiment__candidate__idea__thread")
    return list(rows.order_by("experiment__number"))


def verdict(row: Verdict, merges: list[MergeRequest], withheld: list[str]) -> dict[str, Any]:
    """What was compared, what the rule said, and the evidence that it said it of; findings by kind alone."""
    experiment, candidate = row.experiment, row.experiment.candidate
    results = Result.objects.filter(trial__experiment=experiment)
    spent = results.aggregate(trials=Count("pk"), seconds=Sum("device_seconds"))
    merged = any(request.verdict_id == row.pk for request in merges)
    return {
        "number": experiment.number, "purpose": experiment.purpose, "kind": row.kind, "stage": row.stage,
        "baseline": experiment.baseline_commit, "candidate": experiment.candidate_commit,
        "effect": row.effect, "low": row.low, "high": row.high, "shrunk": row.shrunk, "e_value": row.e_value,
        "bar": row.bar, "pairs": row.pairs, "p_value": row.p_value, "relative": row.relative, "merged": merged,
        "trials": spent["trials"], "device_seconds": round(spent["seconds"] or 0.0, 2),
        "isolation_level": min(results.values_list("isolation_level", flat=True), default=None),
        "idea": idea(candidate.idea) if candidate else {"name": experiment.label},
        "patch": patch(candidate, merged, withheld),
        "rule": None if experiment.rule == experiment.project.rule else experiment.rule,
        "evidence": without_words(row.evidence),
    }  # fmt: skip


def idea(idea: Idea) -> dict[str, Any]:
    return {
        "name": idea.name, "hypothesis": idea.hypothesis, "kind": idea.kind, "researcher": idea.researcher,
        "model": idea.model, "thread": idea.thread.number, "steps": idea.steps, "expected_effect": idea.expected_effect,
    }  # fmt: skip


def patch(candidate: Candidate | None, merged: bool, withheld: list[str]) -> list[str] | None:
    """The lines of a diff that cannot be made again from the catalogue, or that was merged."""
    if candidate is None or not (merged or any(is_change(name) for name in candidate.idea.techniques)):
        return None
    return lines_of(candidate.diff.patch, withheld)


def without_words(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Evidence as frozen, with findings that say their kind and weight only."""
    bare = [
        {"kind": finding["kind"], "severity": finding["severity"], "message": finding["kind"], "evidence": []}
        for finding in evidence["findings"]
    ]
    return {**evidence, "findings": bare}


def champion(project: Project, merges: list[MergeRequest], withheld: list[str]) -> dict[str, Any]:
    """The commit, its recipe with what each step is, and all of its difference from the start."""
    names = list(dict.fromkeys(step["technique"] for step in merges[-1].candidate.recipe)) if merges else []
    known, own = catalogue_of(project), changes(project, names)
    shipped = project.contract.catalogue(project.preset, project.data_path)
    steps = []
    for name in names:
        title = own[name].name if name in own else known[name].title if name in known else name
        source = known[name].source if name in known else ""
        tuned = name in shipped and shipped[name].tuned_here
        steps.append({"name": name, "title": title, "source": source, "known": name in shipped, "tuned_here": tuned})
    change = Repository(project.repository_path).diff(project.start_commit, project.champion)
    return {
        "commit": project.champion,
        "steps": steps,
        "recipe": merges[-1].candidate.recipe if merges else [],
        "patch": lines_of(change.patch, withheld),
    }


def merge(request: MergeRequest) -> dict[str, Any]:
    return {
        "number": request.verdict.experiment.number, "name": request.candidate.idea.name, "base": request.base,
        "commit": request.commit, "decided_by": "policy" if request.decided_by_policy else "a person",
        "split": beside.split(request.verdict.experiment),
    }  # fmt: skip


def frontier(project: Project) -> dict[str, Any]:
    """Every attempt and every merge above the start, against device time and trials spent until its verdict."""
    seen, spent = frontier_of(project), spent_until(project)
    steps = [step(rise) | spent[rise.number] for rise in seen.steps]
    attempts = [
        {"number": row.number, "kind": row.kind, "height": row.height} | spent[row.number] for row in seen.attempts
    ]
    total = seen.total
    closing = None if total is None else {"gain": total.gain, "half": total.half, "pairs": total.pairs}
    return {"attempts": attempts, "steps": steps, "closing": closing}


def step(rise: Rise) -> dict[str, Any]:
    named = ("number", "what", "height", "low", "high", "gain", "half", "pairs")
    return {name: getattr(rise, name) for name in named}


def spent_until(project: Project) -> dict[int, dict[str, float]]:
    """By experiment number: device-seconds and trials of the whole project when its verdict came."""
    results = Result.objects.filter(trial__project=project).order_by("created")
    costs = list(results.values_list("created", "device_seconds"))
    found, at, seconds = {}, 0, 0.0
    rows = Verdict.objects.filter(experiment__project=project, experiment__purpose=Experiment.Purpose.COMPARE)
    for number, created in rows.order_by("created").values_list("experiment__number", "created"):
        while at < len(costs) and costs[at][0] <= created:
            seconds += costs[at][1]
            at += 1
        found[number] = {"trials": at, "device_seconds": round(seconds, 1)}
    return found


def surroundings(project: Project) -> dict[str, Any]:
    """On what it ran, and with which versions it was recorded."""
    rows = Result.objects.filter(trial__project=project)
    machines = rows.order_by("machine_class").values_list("machine_class", "isolation_level")
    said: dict[str, set[str]] = {}
    hashes: dict[str, set[str]] = {}
    for around, hashed in rows.values_list("surroundings", "hashes"):
        for name, value in around.items():
            said.setdefault(name, set()).add(value)
        for name in ("judge", "data", "environment"):
            hashes.setdefault(name, set()).add(hashed.get(name, ""))
    return {
        "machines": [
            {"machine_class": name, "isolation_level": level, "trials": count}
            for (name, level), count in sorted(Counter(machines).items())
        ],
        "device": {name: next(iter(values)) for name, values in sorted(said.items()) if len(values) == 1},
        "hashes": {name: sorted(values) for name, values in hashes.items()},
        "recorded_with": {"python": python_version()}
        | {name: found for name in PACKAGES if (found := installed(name))},
    }


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
