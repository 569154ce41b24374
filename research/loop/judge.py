"""Gather the evidence of complete trials, ask the pure rule, store the verdict. No model is called here."""

from __future__ import annotations

import math

from django.db import transaction

from research.loop.memory import noise_floor
from research.models import Experiment, Finding, Result, Thread, Trial, Verdict
from research.validation import rules
from research.validation.effects import relative_gain
from research.validation.rules import Evidence, MorePairs, PairedScore, Rule, Severity, Stage, WaitForNoise

BROKEN_PAIRS = 3  # pairs lost to machines before an experiment is given up


def step(thread: Thread) -> bool:
    """Judge one experiment of the thread that can be judged. True where rows changed."""
    return any(judge(experiment) for experiment in thread.experiments.running().order_by("pk"))


def judge(experiment: Experiment) -> bool:
    """More pairs, a verdict, or nothing yet."""
    record_observations(experiment)
    idle = experiment.is_idle()
    evidence = gather(experiment)
    if not idle and not evidence.structural:
        return False
    rule = Rule.from_json(experiment.rule)
    decision = rules.decide(evidence, rule)
    if isinstance(decision, WaitForNoise):
        return False
    if isinstance(decision, MorePairs):
        broken = broken_pairs(experiment, decision.stage)
        if broken > BROKEN_PAIRS:
            return conclude(experiment, evidence, _given_up(evidence, rule, broken))
        return experiment.plan(decision.stage, decision.pairs + broken) > 0  # what broke is made up for
    return conclude(experiment, evidence, decision)


def gather(experiment: Experiment) -> Evidence:
    """Freeze what is known: complete pairs, the noise floor, the findings."""
    floor = noise_floor(experiment.project)
    noise = rules.NoiseFloor(floor.sigma_trial, floor.sigma_pair, floor.drift, floor.trials) if floor else None
    findings = tuple(
        rules.Finding(f.kind, Severity(f.severity), f.message, tuple(f.evidence)) for f in experiment.findings.all()
    )
    return Evidence(pairs=complete_pairs(experiment), noise=noise, findings=findings)


def complete_pairs(experiment: Experiment) -> tuple[PairedScore, ...]:
    rows: dict[tuple[str, int], dict[str, Trial]] = {}
    trials = experiment.trials.filter(result__score__isnull=False).select_related("result")
    for trial in trials.order_by("pk"):
        rows.setdefault((trial.stage, trial.pair), {})[trial.arm] = trial
    return tuple(
        PairedScore(
            Stage(stage), pair, arms[Trial.Arm.BASELINE].seed,
            arms[Trial.Arm.BASELINE].result.value, arms[Trial.Arm.CANDIDATE].result.value,
        )
        for (stage, pair), arms in rows.items()
        if len(arms) == 2
    )  # fmt: skip


def broken_pairs(experiment: Experiment, stage: str) -> int:
    """Pairs of a stage that ended without two scores (a machine's fault: a candidate's failure is a finding)."""
    over = experiment.trials.filter(stage=stage, state__in=(Trial.State.ENDED, Trial.State.LOST))
    pairs = set(over.values_list("pair", flat=True))
    return len(pairs) - sum(pair.stage == stage for pair in complete_pairs(experiment))


def record_observations(experiment: Experiment) -> None:
    """Turn what evaluators saw, and failures of the candidate's arm, into findings. Safe to repeat."""
    results = Result.objects.filter(trial__experiment=experiment, trial__arm=Trial.Arm.CANDIDATE)
    for result in results.select_related("trial"):
        seen = list(result.observations)
        if result.failure:
            seen.append({"kind": result.failure, "severity": "structural", "message": result.message, "evidence": ()})
        for observation in seen:
            Finding.objects.get_or_create(
                experiment=experiment, trial=result.trial, kind=observation["kind"],
                message=observation["message"][:500],
                defaults={"severity": observation["severity"], "evidence": list(observation["evidence"])},
            )  # fmt: skip


def conclude(experiment: Experiment, evidence: Evidence, verdict: rules.Verdict) -> bool:
    """Store the verdict. Once, however often it is called."""
    with transaction.atomic():
        if not experiment.end():
            return False
        fields = {name: value for name, value in vars(verdict).items() if name not in ("kind", "stage")}
        Verdict.objects.create(
            experiment=experiment, kind=str(verdict.kind), stage=str(verdict.stage), evidence=evidence.to_json(),
            relative=relative_gain(evidence, Rule.from_json(experiment.rule)).mean,
            **{name: _finite(value) for name, value in fields.items()},
        )  # fmt: skip
    return True


def _given_up(evidence: Evidence, rule: Rule, broken: int) -> rules.Verdict:
    reason = f"{broken} pairs were lost to machines; look at their logs and try again"
    return rules.Verdict(
        rules.VerdictKind.INCONCLUSIVE, evidence.stage, None, None, None, None, 1.0, 1.0, rule.bar, 0, False, reason
    )  # fmt: skip


def _finite(value: object) -> object:
    """The database holds no infinity; an e-value beyond any use is cut."""
    return math.copysign(1e300, value) if isinstance(value, float) and math.isinf(value) else value
