"""Verdict -> Lesson, for failures too. Never changes the verdict."""

from __future__ import annotations

from django.db import transaction

from research.loop.memory import recipe_of
from research.models import Event, Lesson, Thread, Verdict
from research.validation.effects import relative_gain
from research.validation.rules import Evidence, Rule, VerdictKind

FAILURES = ("crash", "timeout", "out_of_memory", "not_finite", "no_weights", "bad_output", "disk_full")


def step(thread: Thread) -> bool:
    """Learn from a verdict of the thread that has no lesson yet."""
    verdict = Verdict.objects.filter(experiment__thread=thread, experiment__lesson=None).order_by("pk").first()
    if verdict is None or verdict.experiment.candidate is None:
        return False
    learn(verdict)
    return True


def learn(verdict: Verdict) -> Lesson:
    """What this verdict taught, with scope and evidence. One lesson a verdict."""
    experiment = verdict.experiment
    candidate = experiment.candidate
    assert candidate is not None and experiment.thread is not None
    evidence, rule = Evidence.from_json(verdict.evidence), Rule.from_json(experiment.rule)
    effect, error, pairs = relative_gain(evidence, rule)
    base = [step.technique for step in recipe_of(experiment.project, experiment.baseline_commit)]
    latest = experiment.trials.filter(result__isnull=False).select_related("result").last()
    kind = kind_of(verdict)
    with transaction.atomic():
        lesson, new = Lesson.objects.get_or_create(
            experiment=experiment,
            defaults={
                "project": experiment.project, "thread": experiment.thread, "kind": kind,
                "text": sentence(verdict, kind, effect, error), "techniques": candidate.idea.steps,
                "base": experiment.baseline_commit, "recipe": base, "effect": effect, "error": error, "pairs": pairs,
                "machine_class": latest.result.machine_class if latest else "",
            },
        )  # fmt: skip
        if new:
            words = (
                f"lesson of experiment {experiment.number}: {Lesson.Kind(kind).label.lower()}, {candidate.idea.name}"
            )
            Event.record(Event.Kind.LESSON, words, experiment=experiment)
    return lesson


def kind_of(verdict: Verdict) -> str:
    """What kind of lesson: crashes are told apart from integrity findings, near misses from the rest."""
    if verdict.kind == VerdictKind.IMPROVED:
        return Lesson.Kind.GAIN
    if verdict.kind == VerdictKind.INVALID:
        kinds = set(verdict.experiment.findings.filter(severity="structural").values_list("kind", flat=True))
        return Lesson.Kind.FAILURE if kinds and kinds <= set(FAILURES) else Lesson.Kind.INVALID
    if verdict.near_miss:
        return Lesson.Kind.NEAR_MISS
    return Lesson.Kind.HARM if verdict.kind == VerdictKind.WORSE else Lesson.Kind.NO_GAIN


def sentence(verdict: Verdict, kind: str, effect: float | None, error: float | None) -> str:
    what = verdict.experiment.candidate.idea.hypothesis.rstrip(".")  # type: ignore[union-attr]
    if kind == Lesson.Kind.FAILURE:
        return f"Failed: {what}. {verdict.reason}"
    measured = f"{effect:+.2%} ± {error:.2%}" if effect is not None and error is not None else "not measured"
    return f"{str(verdict.kind).replace('_', ' ').capitalize()} ({measured}): {what}. {verdict.reason}"
