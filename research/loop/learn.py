"""Verdict -> Lesson, for failures too. Never changes the verdict."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db import transaction
from django.db.models import Q

from research.loop.floors import relative_sigma
from research.loop.memory import recipe_of
from research.loop.repeats import tried_again
from research.loop.screens import blind_stops
from research.models import Event, Idea, Lesson, Session, Thread, Verdict
from research.validation import rules
from research.validation.effects import relative_gain
from research.validation.lessons import MACHINE_FAILURE, Assumption, confidence, supersedes
from research.validation.rules import Evidence, Rule, VerdictKind

MACHINE_FAILURES = ("timeout", "out_of_memory", "disk_full", "busy_device", "no_device", "no_data")
FAILURES = (*MACHINE_FAILURES, "crash", "not_finite", "no_weights", "bad_output")


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
    if verdict.kind == VerdictKind.INVALID:  # its scores count for nothing, here neither
        effect = error = None
    base = [step.technique for step in recipe_of(experiment.project, experiment.baseline_commit)]
    latest = experiment.trials.filter(result__isnull=False).select_related("result").last()
    machine_class = latest.result.machine_class if latest else ""
    kind, blind = kind_of(verdict), blind_stops(experiment.project)
    with transaction.atomic():
        lesson, new = Lesson.objects.get_or_create(
            experiment=experiment,
            defaults={
                "project": experiment.project, "thread": experiment.thread, "kind": kind,
                "text": sentence(verdict, kind, effect, error, pairs), "techniques": candidate.idea.steps,
                "base": experiment.baseline_commit, "recipe": base, "effect": effect, "error": error, "pairs": pairs,
                "machine_class": machine_class, "confidence": confidence_of(verdict, kind, pairs, rule),
                "assumption": assumption_of(verdict, kind, base, machine_class),
                "session": candidate.idea.sessions.filter(purpose=Session.Purpose.PROPOSE).order_by("pk").last(),
            },
        )  # fmt: skip
        if new:
            words = (
                f"lesson of experiment {experiment.number}: {Lesson.Kind(kind).label.lower()}, {candidate.idea.name}"
            )
            Event.record(Event.Kind.LESSON, words, experiment=experiment)
            if experiment.pk not in blind:
                compare(lesson, candidate.idea, blind)
    return lesson


def compare(lesson: Lesson, idea: Idea, blind: Collection[int]) -> None:
    """Hold a new lesson against earlier ones of the same change: pool, supersede, or tell that they disagree.

    `blind`: experiments that taught nothing, see `screens.blind_stops`.
    """
    if not idea.steps:
        return
    code = {"base": lesson.base, "experiment__candidate__tree": idea.candidate.tree}
    rows = lesson.project.lessons.current().exclude(pk=lesson.pk).filter(
        Q(labels__contains=f" {idea.techniques[0]} ") | Q(**code),
        superseded_by=None, experiment__candidate__isnull=False, imported_from="",
    ).exclude(experiment__in=blind)  # fmt: skip
    for old in rows.select_related("experiment__candidate__idea").order_by("pk"):
        before = old.experiment.candidate  # type: ignore[union-attr]  # by the filter
        assert before is not None
        if old.base == lesson.base and before.tree == idea.candidate.tree:
            lesson.supersede(old, Lesson.Superseded.POOLED)
        elif why := _stands_before(lesson, old, before.idea, idea):
            lesson.supersede(old, why)
    for old in tried_again(lesson, idea):
        if why := supersedes(lesson.measured, old.measured):
            lesson.supersede(old, why)


def _stands_before(lesson: Lesson, old: Lesson, before: Idea, idea: Idea) -> str:
    """The same settings on another base. A retune was measured against another setting, not without the technique."""
    retunes = {before.kind == Idea.Kind.RETUNE, idea.kind == Idea.Kind.RETUNE}
    same = old.techniques == idea.steps and len(retunes) == 1
    return supersedes(lesson.measured, old.measured) if same else ""


def confidence_of(verdict: Verdict, kind: str, pairs: int, rule: Rule) -> float:
    if kind == Lesson.Kind.FAILURE and _blamed(verdict) & set(MACHINE_FAILURES):
        return MACHINE_FAILURE
    level = rule.level if verdict.kind == VerdictKind.NO_DIFFERENCE else None
    return confidence(kind, verdict.e_value, verdict.e_against, pairs, level)


def assumption_of(verdict: Verdict, kind: str, base: list[str], machine_class: str) -> dict[str, Any]:
    """What a discard rests on; empty where nothing was settled against the change.

    Of code of a researcher's own, a stop that saw no gain settles it too, as in `Experiment.refusing_rewrites`.
    """
    experiment, failed = verdict.experiment, kind == Lesson.Kind.FAILURE
    idea = experiment.candidate.idea  # type: ignore[union-attr]
    stopped = verdict.kind == VerdictKind.INCONCLUSIVE and verdict.relative is not None and verdict.relative <= 0
    settled = verdict.kind in (VerdictKind.WORSE, VerdictKind.NO_DIFFERENCE, VerdictKind.INVALID)
    if not settled and not (stopped and idea.kind == Idea.Kind.CHANGE):
        return {}
    return Assumption(
        preset=experiment.project.preset, recipe=tuple(base), techniques=tuple(idea.techniques),
        labels=tuple(map(str, experiment.problems or idea.tags)),
        sigma=relative_sigma(experiment.project) if stopped or verdict.kind == VerdictKind.NO_DIFFERENCE else None,
        machine_class=machine_class if failed and _blamed(verdict) & set(MACHINE_FAILURES) else "",
    ).to_json()  # fmt: skip


def kind_of(verdict: Verdict) -> str:
    """What kind of lesson: crashes are told apart from integrity findings, near misses from the rest.

    What had gained when the budget ended, `main` moved on or machines were lost has shown no lack of a gain.
    """
    if verdict.kind == VerdictKind.IMPROVED:
        return Lesson.Kind.GAIN
    if verdict.kind == VerdictKind.INVALID:
        kinds = _blamed(verdict)
        return Lesson.Kind.FAILURE if kinds and kinds <= set(FAILURES) else Lesson.Kind.INVALID
    if verdict.near_miss:
        return Lesson.Kind.NEAR_MISS
    if verdict.kind == VerdictKind.INCONCLUSIVE and (verdict.effect or 0.0) > 0 and _was_cut_short(verdict):
        return Lesson.Kind.UNSETTLED
    return Lesson.Kind.HARM if verdict.kind == VerdictKind.WORSE else Lesson.Kind.NO_GAIN


def _was_cut_short(verdict: Verdict) -> bool:
    """Whether its rule would have asked for more pairs of it."""
    decision = rules.decide(Evidence.from_json(verdict.evidence), Rule.from_json(verdict.experiment.rule))
    return isinstance(decision, rules.MorePairs | rules.WaitForNoise)


def _blamed(verdict: Verdict) -> set[str]:
    return set(verdict.experiment.findings.filter(severity="structural").values_list("kind", flat=True))


NOT_SHOWN = {
    VerdictKind.WORSE: "Hypothesis, contradicted",
    VerdictKind.NO_DIFFERENCE: "Hypothesis, not shown",
    VerdictKind.INCONCLUSIVE: "Hypothesis, not shown",
    VerdictKind.INVALID: "Hypothesis, not tested",
}


def sentence(
    verdict: Verdict, kind: str, effect: float | None = None, error: float | None = None, pairs: int = 0
) -> str:
    """What came out, then what had been thought. A sentence that nothing bears out is marked as what it is: whoever
    reads a lesson takes it for what was learned. The reason tells of the pairs that decided, `effect` of all."""
    what = verdict.experiment.candidate.idea.hypothesis.rstrip(".")  # type: ignore[union-attr]
    said = NOT_SHOWN.get(VerdictKind(verdict.kind))
    reason = f"{verdict.reason[:1].upper()}{verdict.reason[1:]}"
    if verdict.kind == VerdictKind.INVALID:  # what it measured counts for nothing, so no number stands here
        return f"{'Failed' if kind == Lesson.Kind.FAILURE else 'Invalid'}: {verdict.reason}. {said}: {what}."
    count = "1 pair" if pairs == 1 else f"all {pairs} pairs, screening too"
    measured = f"{effect:+.2%} ± {error:.2%} over {count}" if effect is not None and error is not None else ""
    outcome = f"{str(verdict.kind).replace('_', ' ').capitalize()} ({measured or 'not measured'})"
    return f"{outcome}: {what}. {reason}" if said is None else f"{outcome}. {reason}. {said}: {what}."
