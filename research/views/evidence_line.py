"""The evidence of an experiment in one line: what `y` copies into a chat or a paper, the same on every page."""

from __future__ import annotations

from django.db.models import Min

from research.models import Experiment, Verdict
from research.templatetags.lab import MINUS, evalue, signed
from research.views.datawords import ANEW


def evidence_line(experiment: Experiment, verdict: Verdict | None, url: str) -> str:
    """Project, experiment, verdict, effect, e-value and bar, pairs, set, isolation, rule, commit, link."""
    project, metric = experiment.project, experiment.project.contract.metric
    head = f"{project.name} #{experiment.number}"
    commit = f"commit {experiment.candidate_commit[:8]} against {experiment.baseline_commit[:8]}"
    if verdict is None or verdict.effect is None:
        said = f"{_word(verdict.kind)}: {verdict.reason}" if verdict else "being measured"
        return f"{head}: {said}; {commit}, {url}"
    pairs = f"{verdict.pairs or len(verdict.evidence['pairs'])} {verdict.stage} pairs"
    data, level = measured_on(experiment, verdict.stage)
    unknown = "set unknown" if project.sizes.confirm_data else ANEW
    held = f"{data or unknown}, isolation {'unknown' if level is None else level}"
    gain = f"{metric.name} gain {effect_words(verdict)} {metric.unit}"
    return (
        f"{head}: {_word(verdict.kind)}, {gain}, {weight_words(verdict)}, {pairs}, {held}, "
        f"rule {experiment.rule.get('name')}, {commit}, {url}"
    )


def weight_words(verdict: Verdict) -> str:
    """What the verdict rests on: the e-value and its bar, or the p-value of a rule that reads once."""
    if not verdict.pairs:
        return "no evidence yet"
    if verdict.p_value is not None:
        return f"p {verdict.p_value:.3g} / asked below {verdict.experiment.rule.get('p_bar')}"
    return f"e {evalue(verdict.e_value)} / bar {evalue(verdict.bar)}"


def effect_words(verdict: Verdict) -> str:
    """`+0.0946 ± 0.0360`; only the mean where the pairs bound nothing yet."""
    if verdict.low is None or verdict.high is None:
        return signed(verdict.effect)
    half = signed((verdict.high - verdict.low) / 2).lstrip(f"+{MINUS}")
    return f"{signed(verdict.effect)} ± {half}"


def measured_on(experiment: Experiment, stage: str) -> tuple[str, int | None]:
    """The split that scored a stage, and the lowest isolation level among its results."""
    found = experiment.trials.filter(stage=stage).aggregate(data=Min("split"), lowest=Min("result__isolation_level"))
    return found["data"] or "", found["lowest"]


def _word(kind: str) -> str:
    return kind.replace("_", " ")
