"""The size of an effect for memory and tables: relative to the baseline, over all pairs of all stages.

Where another preset screened, over the confirm pairs alone once there are any: gains of two presets have no mean.
Not evidence: screening pairs are in it. A verdict rests on `rules.decide` alone.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from research.validation.records import Evidence, Rule, Scale, Stage

UNKNOWN_SIGMA = 0.01  # relative noise of a pair, where no floor has been measured yet


class RelativeGain(NamedTuple):
    mean: float | None  # share of the baseline's mean score, positive is better
    error: float | None  # standard error of `mean`
    pairs: int


def relative_gain(evidence: Evidence, rule: Rule) -> RelativeGain:
    pairs, floor = evidence.pairs, evidence.noise
    if evidence.screening:
        confirmed = evidence.of(Stage.CONFIRM)
        pairs, floor = (confirmed, floor) if confirmed else (pairs, evidence.screening.noise)
    if not pairs:
        return RelativeGain(None, None, 0)
    count = len(pairs)
    level = rule.mean_score([pair.baseline for pair in pairs])
    mean = math.fsum(rule.gain(pair) for pair in pairs) / count
    if not level:
        return RelativeGain(None, None, count)
    noise = floor.on_scale(rule, level) if floor else None
    unit = 1.0 if rule.scale is Scale.LOG else level
    sigma = noise.sigma_pair / unit if noise else UNKNOWN_SIGMA
    return RelativeGain(rule.in_units(mean, level) / level, sigma / math.sqrt(count), count)


def confirmed_gain(evidence: Evidence, rule: Rule) -> RelativeGain:
    """The same over the confirming pairs alone: those that a verdict's reason speaks of."""
    return relative_gain(replace(evidence, pairs=evidence.of(Stage.CONFIRM)), rule)
