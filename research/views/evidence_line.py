"""The evidence of an experiment in one line: what `y` copies into a chat or a paper, the same on every page."""

from __future__ import annotations

from django.db.models import Min

from research.models import Experiment, Verdict
from research.templatetags.lab import MINUS, evalue, signed


def evidence_line(experiment: Experiment, verdict: Verdict | None, url: str) -> str:
    """Project, experiment, verdict, effect, e-value and bar, pairs, set, isolation, rule, commit, link."""
    project, metric = experiment.project, experiment.project.contract.metric
    head = f"{project.name} #{experiment.number}"
    commit = f"commit {experiment.candidate_commit[:8]} against {experiment.baseline_commit[:8]}"
    if verdict is None or verdict.effect is None:
        said = f"{_word(verdict.kind)}: {verdict.reason}" if verdict else "being measured"
        return f"{head}: {said}; {commit}, {url}"
    pairs = f"{verdict.pairs or len(verdict.evidence['pairs'])} {verdict.stage} pairs"
    weight = f"e {evalue(verdict.e_value)} / bar {evalue(verdict.bar)}" if verdict.pairs else "no evidence yet"
    data, isolation = experiment.split_of(verdict.stage), isolation_of(experiment, verdict.stage)
    return (
        f"{head}: {_word(verdict.kind)}, {metric.name} gain {effect_words(verdict)} {metric.unit}, {weight}, {pairs}, "
        f"{data}, isolation {'unknown' if isolation is None else isolation}, rule {experiment.rule.get('name')}, "
        f"{commit}, {url}"
    )


def effect_words(verdict: Verdict) -> str:
    """`+0.0946 ± 0.0360`; only the mean where the pairs bound nothing yet."""
    if verdict.low is None or verdict.high is None:
        return signed(verdict.effect)
    half = signed((verdict.high - verdict.low) / 2).lstrip(f"+{MINUS}")
    return f"{signed(verdict.effect)} ± {half}"


def isolation_of(experiment: Experiment, stage: str) -> int | None:
    """The lowest isolation level among the results of a stage."""
    results = experiment.trials.filter(stage=stage, result__isnull=False)
    level: int | None = results.aggregate(lowest=Min("result__isolation_level"))["lowest"]
    return level


def _word(kind: str) -> str:
    return kind.replace("_", " ")
