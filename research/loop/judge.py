"""Gather the evidence of complete trials, ask the pure rule, store the verdict. No model is called here."""

from __future__ import annotations

from dataclasses import replace

from research.loop.evidence import conclude, gather
from research.models import Experiment, Finding, Project, Result, Thread, Trial
from research.validation import rules
from research.validation.rules import Evidence, MorePairs, Rule, Severity, Stage, WaitForNoise

MACHINE_FAILURES = ("timeout", "out_of_memory", "disk_full", "busy_device", "no_device", "no_data")
BROKEN_PAIRS = 3  # pairs lost to machines before an experiment is given up


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
    if not experiment.is_idle() and not experiment.findings.filter(severity=str(Severity.STRUCTURAL)).exists():
        return False
    evidence = gather(experiment)
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


def broken_pairs(experiment: Experiment, stage: str) -> int:
    """Pairs of a stage that ended without two scores (a machine's fault: a candidate's failure is a finding)."""
    over = experiment.trials.filter(stage=stage, state__in=(Trial.State.ENDED, Trial.State.LOST))
    pairs = set(over.values_list("pair", flat=True))
    return len(pairs) - sum(pair.stage == stage for pair in experiment.complete_pairs())


def record_observations(experiment: Experiment) -> None:
    """Turn what evaluators saw, and failures of the candidate's arm, into findings. Safe to repeat."""
    results = Result.objects.filter(trial__experiment=experiment, trial__arm=Trial.Arm.CANDIDATE)
    told = results.exclude(observations=[], failure="").defer("metrics", "seconds", "hashes", "surroundings", "sample")
    for result in told.select_related("trial"):
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


def _given_up(evidence: Evidence, rule: Rule, broken: int) -> rules.Verdict:
    reason = f"{broken} pairs were lost to machines; look at their logs and try again"
    return rules.Verdict(
        rules.VerdictKind.INCONCLUSIVE, evidence.stage, None, None, None, None, 1.0, 1.0, rule.bar, 0, False, reason
    )  # fmt: skip
