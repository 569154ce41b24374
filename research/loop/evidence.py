"""What is known of an experiment, and the verdict on it as a row. Used by steps; the rule itself is pure."""

from __future__ import annotations

import math

from django.db import transaction

from research.loop.floors import confirming
from research.loop.screens import screening_of
from research.models import Event, Experiment, Verdict
from research.validation import rules
from research.validation.effects import RelativeGain, relative_gain
from research.validation.rules import Evidence, Rule, Severity, VerdictKind

SAID = {
    VerdictKind.IMPROVED: "improved by",
    VerdictKind.WORSE: "is worse by",
    VerdictKind.NO_DIFFERENCE: "made no difference:",
    VerdictKind.INCONCLUSIVE: "could not tell:",
    VerdictKind.INVALID: "is invalid:",
}


def gather(experiment: Experiment) -> Evidence:
    """Freeze what is known: complete pairs, the noise floor, the findings."""
    floor = confirming(experiment)
    noise = floor.record() if floor else None
    findings = tuple(
        rules.Finding(f.kind, Severity(f.severity), f.message, tuple(f.evidence)) for f in experiment.findings.all()
    )
    bar = (experiment.original or experiment).bar
    pairs = experiment.complete_pairs()
    is_apart = experiment.purpose == Experiment.Purpose.COMPARE and not experiment.preset
    screening = screening_of(experiment.project) if is_apart else None
    return Evidence(pairs=pairs, noise=noise, findings=findings, bar=bar, screening=screening)


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


def _finite(value: object) -> object:
    """The database holds no infinity; an e-value beyond any use is cut."""
    return math.copysign(1e300, value) if isinstance(value, float) and math.isinf(value) else value
