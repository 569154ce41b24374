"""Gather the evidence of complete trials, ask the pure rule, store the verdict. No model is called here."""

from __future__ import annotations

import math
from dataclasses import replace

from django.db import transaction

from research.loop.memory import noise_floor
from research.loop.screens import screening_of
from research.models import Event, Experiment, Finding, Project, Result, Thread, Trial, Verdict
from research.validation import rules
from research.validation.effects import RelativeGain, relative_gain
from research.validation.rules import Evidence, MorePairs, Rule, Severity, Stage, VerdictKind, WaitForNoise

MACHINE_FAILURES = ("timeout", "out_of_memory", "disk_full", "busy_device", "no_device", "no_data")
BROKEN_PAIRS = 3  # pairs lost to machines before an experiment is given up
SAID = {
    VerdictKind.IMPROVED: "improved by",
    VerdictKind.WORSE: "is worse by",
    VerdictKind.NO_DIFFERENCE: "made no difference:",
    VerdictKind.INCONCLUSIVE: "could not tell:",
    VerdictKind.INVALID: "is invalid:",
}


def step(thread: Thread) -> bool:
    """Judge one experiment of the thread that can be judged. True where rows changed."""
    return any(judge(experiment) for experiment in thread.experiments.running().order_by("pk"))


def replicates(project: Project) -> bool:
    """End a replicate whose pairs are complete, with the verdict of its own pairs. True where rows changed."""
    running = project.experiments.running().filter(purpose=Experiment.Purpose.REPLICATE)
    return any(judge_replicate(experiment) for experiment in running.order_by("pk"))


def rivals(project: Project) -> bool:
    """End a comparison with a tree from elsewhere whose pairs are complete: the same rule, and no merge."""
    running = project.experiments.running().filter(purpose=Experiment.Purpose.RIVAL)
    return any([judge_replicate(experiment) for experiment in running.order_by("pk")])


def judge_replicate(experiment: Experiment) -> bool:
    record_observations(experiment)
    evidence, rule = gather(experiment), Rule.from_json(experiment.rule)
    if not experiment.is_idle() and not evidence.structural:
        return False
    broken = broken_pairs(experiment, Stage.CONFIRM)
    missing = experiment.wanted_pairs - len(evidence.pairs)
    if missing > 0 and not evidence.structural:
        if broken > BROKEN_PAIRS:
            return conclude(experiment, evidence, _given_up(evidence, rule, broken))
        return experiment.plan(str(Stage.CONFIRM), experiment.wanted_pairs + broken) > 0
    decision = rules.settle(evidence, rule)
    return not isinstance(decision, WaitForNoise) and conclude(experiment, evidence, decision)


def judge(experiment: Experiment) -> bool:
    """More pairs, a verdict, or nothing yet."""
    record_observations(experiment)
    idle = experiment.is_idle()
    evidence = gather(experiment)
    if not idle and not evidence.structural:
        return False
    rule = Rule.from_json(experiment.rule)
    if experiment.bar is None and rule.is_sequential and len(evidence.of(Stage.CONFIRM)) >= rule.looks[0]:
        experiment.take_turn(rule.campaign_bar)
        evidence = replace(evidence, bar=experiment.bar)
    decision = rules.decide(evidence, rule)
    if isinstance(decision, WaitForNoise):
        return False
    if isinstance(decision, MorePairs):
        if why := experiment.project.over_budget():
            experiment.project.exhaust(why)  # or its thread would begin the next one before the next look at budgets
            return conclude(experiment, evidence, rules.stop(evidence, rule, f"stopped, {why}"))
        broken = broken_pairs(experiment, decision.stage)
        if broken > BROKEN_PAIRS:
            return conclude(experiment, evidence, _given_up(evidence, rule, broken))
        return experiment.plan(decision.stage, decision.pairs + broken) > 0  # what broke is made up for
    return conclude(experiment, evidence, decision)


def gather(experiment: Experiment) -> Evidence:
    """Freeze what is known: complete pairs, the noise floor, the findings."""
    floor = noise_floor(experiment.project)
    noise = floor.record() if floor else None
    findings = tuple(
        rules.Finding(f.kind, Severity(f.severity), f.message, tuple(f.evidence)) for f in experiment.findings.all()
    )
    bar = (experiment.original or experiment).bar
    pairs = experiment.complete_pairs()
    screening = screening_of(experiment.project) if experiment.purpose == Experiment.Purpose.COMPARE else None
    return Evidence(pairs=pairs, noise=noise, findings=findings, bar=bar, screening=screening)


def broken_pairs(experiment: Experiment, stage: str) -> int:
    """Pairs of a stage that ended without two scores (a machine's fault: a candidate's failure is a finding)."""
    over = experiment.trials.filter(stage=stage, state__in=(Trial.State.ENDED, Trial.State.LOST))
    pairs = set(over.values_list("pair", flat=True))
    return len(pairs) - sum(pair.stage == stage for pair in experiment.complete_pairs())


def record_observations(experiment: Experiment) -> None:
    """Turn what evaluators saw, and failures of the candidate's arm, into findings. Safe to repeat."""
    results = Result.objects.filter(trial__experiment=experiment, trial__arm=Trial.Arm.CANDIDATE)
    for result in results.select_related("trial"):
        seen = list(result.observations)
        if result.failure and not _shared_by_its_pair(result):
            seen.append({"kind": result.failure, "severity": "structural", "message": result.message, "evidence": ()})
        for observation in seen:
            Finding.objects.get_or_create(
                experiment=experiment, trial=result.trial, kind=observation["kind"],
                message=observation["message"][:500],
                defaults={"severity": observation["severity"], "evidence": list(observation["evidence"])},
            )  # fmt: skip


def _shared_by_its_pair(result: Result) -> bool:
    """What a machine can lack by itself (time, memory, a free device) counts once the baseline came through."""
    if result.failure not in MACHINE_FAILURES:
        return False
    mine = result.trial
    other = Trial.objects.filter(experiment=mine.experiment_id, stage=mine.stage, pair=mine.pair).exclude(pk=mine.pk)
    came_through = other.filter(state=Trial.State.ENDED).exclude(result__failure__in=MACHINE_FAILURES)
    return not came_through.exists()


def conclude(experiment: Experiment, evidence: Evidence, verdict: rules.Verdict) -> bool:
    """Store the verdict. Once, however often it is called."""
    with transaction.atomic():
        if not experiment.end():
            return False
        fields = {name: value for name, value in vars(verdict).items() if name not in ("kind", "stage")}
        relative = relative_gain(evidence, Rule.from_json(experiment.rule))
        if verdict.kind == VerdictKind.INVALID:  # what it measured is kept as evidence, and shown nowhere as a gain
            relative = RelativeGain(None, None, relative.pairs)
        Verdict.objects.create(
            experiment=experiment, kind=str(verdict.kind), stage=str(verdict.stage), evidence=evidence.to_json(),
            relative=relative.mean, **{name: _finite(value) for name, value in fields.items()},
        )  # fmt: skip
        thread = experiment.original.thread if experiment.original else experiment.thread
        Event.record(Event.Kind.VERDICT, sentence(experiment, verdict, relative), experiment=experiment, thread=thread)
    return True


def sentence(experiment: Experiment, verdict: rules.Verdict, gain: RelativeGain) -> str:
    """The verdict as one line of the feed."""
    what = experiment.original or experiment
    again = f" again, over {verdict.pairs} fresh pairs," if experiment.original else ""
    about = f": {experiment.subject.idea.name}" if experiment.subject else f": {experiment.label}"
    return f"Experiment {what.number}{again} {SAID[verdict.kind]} {_size(verdict, gain)}{about}"


def _size(verdict: rules.Verdict, gain: RelativeGain) -> str:
    if verdict.kind == VerdictKind.INVALID:
        return verdict.reason[:120]
    if gain.mean is None or gain.error is None:
        return "nothing was measured"
    signed = verdict.kind not in (VerdictKind.IMPROVED, VerdictKind.WORSE)
    mean = f"{gain.mean:+.1%}" if signed else f"{abs(gain.mean):.1%}"
    return f"{mean} ± {gain.error:.1%}".replace("%", " %")


def _given_up(evidence: Evidence, rule: Rule, broken: int) -> rules.Verdict:
    reason = f"{broken} pairs were lost to machines; look at their logs and try again"
    return rules.Verdict(
        rules.VerdictKind.INCONCLUSIVE, evidence.stage, None, None, None, None, 1.0, 1.0, rule.bar, 0, False, reason
    )  # fmt: skip


def _finite(value: object) -> object:
    """The database holds no infinity; an e-value beyond any use is cut."""
    return math.copysign(1e300, value) if isinstance(value, float) and math.isinf(value) else value
