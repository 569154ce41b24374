"""Freeze rule, seeds and order of an experiment as rows, before anything runs; and keep the budget."""

from __future__ import annotations

from django.db import transaction

from benchmarks.syntax import one_at_a_time
from research.loop.problems import differing
from research.loop.screens import screens_at
from research.models import Candidate, Event, Experiment, Finding, Project, Thread
from research.repository import Repository
from research.validation import integrity
from research.validation.rules import Finding as Observation
from research.validation.rules import Rule, Stage


def step(thread: Thread) -> bool:
    """Open the experiment of an implemented idea. True where one was opened."""
    candidate = thread.waiting_candidate
    if candidate is None:
        return False
    open_experiment(candidate, candidate.parent)
    return True


def open_experiment(candidate: Candidate, baseline: str) -> Experiment:
    """The comparison of a candidate with a baseline; its first trials wait afterwards."""
    project, key = candidate.project, f"candidate-{candidate.public_id}"
    problems = differing(project, baseline, candidate.commit)
    findings, preset = static_findings(candidate), screens_at(project)
    with transaction.atomic():
        experiment = Experiment.objects.filter(key=key).first()
        if experiment is None:
            experiment = Experiment.objects.create(
                key=key, project=project, thread=candidate.thread, candidate=candidate,
                number=project.next_experiment_number(), baseline_commit=baseline, candidate_commit=candidate.commit,
                rule=project.rule, problems=problems, preset=preset,
            )  # fmt: skip
            words = f"experiment {experiment.number} began: {candidate.idea.name}"
            Event.record(Event.Kind.EXPERIMENT, words, experiment=experiment)
        rule = Rule.from_json(experiment.rule)
        first = Stage.SCREEN if rule.screen_pairs else Stage.CONFIRM
        experiment.plan(str(first), rule.screen_pairs or rule.looks[0])
        for finding in findings:
            record_finding(experiment, finding)
    return experiment


def static_findings(candidate: Candidate) -> list[Observation]:
    """Lint what the change touches; findings flag for a person, they do not reject by themselves."""
    repository = Repository(candidate.project.repository_path)
    repository.keep(candidate.ref, candidate.commit)  # a crash may have come between the row and the ref
    files = repository.files(candidate.commit)
    paths = [str(file["path"]) for file in candidate.diff.files]
    with one_at_a_time:  # lint parses
        return [
            finding
            for path in paths
            if path.endswith(".py") and path in files
            for finding in integrity.lint(path, files[path].decode("utf-8", "replace"))
        ]


def record_finding(experiment: Experiment, finding: Observation) -> None:
    Finding.objects.get_or_create(
        experiment=experiment, trial=None, kind=finding.kind, message=finding.message,
        defaults={"severity": finding.severity, "evidence": list(finding.evidence)},
    )  # fmt: skip


def enforce_budget(project: Project) -> None:
    """Nothing new begins once the budget is spent; what runs ends at its next look, see `judge`."""
    if why := project.over_budget():
        project.exhaust(why)
