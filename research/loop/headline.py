"""The headline of a project on many problems: what its confirmed merges come to, over all of its problems.

A merge was measured on the problems that it touches, as a ratio to what stood on `main` there; along the line of merges
these ratios multiply. A problem that no merge touched counts as 1. It is a product of confirmed gains: the closing
experiment, where there is one, measures champion against start directly on the problems that differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from research.models import MergeRequest, Project, Verdict
from research.validation.effects import confirmed_gain
from research.validation.records import Evidence, Rule


@dataclass(frozen=True)
class Headline:
    """`ratios`: problem -> score of the champion over that of the start."""

    ratios: Mapping[str, float]
    lower_is_better: bool

    @property
    def improved(self) -> int:
        """Problems on which the champion is better than the start."""
        return sum(ratio < 1 if self.lower_is_better else ratio > 1 for ratio in self.ratios.values())

    @property
    def mean(self) -> float:
        """The geometric mean over all problems."""
        return math.exp(math.fsum(map(math.log, self.ratios.values())) / len(self.ratios))


def headline_of(project: Project) -> Headline | None:
    """None in a benchmark of one problem."""
    if not project.problems:
        return None
    lower = project.contract.metric.lower_is_better
    ratios = dict.fromkeys(project.problems, 1.0)
    for request in MergeRequest.objects.line(project):
        for name in request.verdict.experiment.problems:
            ratios[name] *= _ratio(request.verdict, lower)
    return Headline(ratios, lower)


def _ratio(verdict: Verdict, lower: bool) -> float:
    """Score of the candidate over that of its baseline, by the confirming pairs; 1 where they tell nothing."""
    gain = confirmed_gain(Evidence.from_json(verdict.evidence), Rule.from_json(verdict.experiment.rule)).mean
    if gain is None:
        return 1.0
    return max(1 - gain, 1e-9) if lower else 1 + gain
