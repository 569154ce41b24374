"""The size of an effect for memory and tables: relative to the baseline, over all pairs of all stages.

Where another preset screened, over the confirm pairs alone once there are any: gains of two presets have no mean.
Not evidence: screening pairs are in it. A verdict rests on `rules.decide` alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import stdev
from typing import NamedTuple

from research.validation.records import Evidence, Rule, Scale, Stage

UNKNOWN_SIGMA = 0.01  # relative noise of a pair, where no floor has been measured yet


class RelativeGain(NamedTuple):
    mean: float | None  # share of the baseline's mean score, positive is better
    error: float | None  # standard error of `mean`; of a single pair, the least it can be
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
    gains = [rule.gain(pair) for pair in pairs]
    mean = math.fsum(gains) / count
    if not level:
        return RelativeGain(None, None, count)
    noise = floor.on_scale(rule, level) if floor else None
    unit = 1.0 if rule.scale is Scale.LOG else level
    sigma = noise.sigma_pair / unit if noise else UNKNOWN_SIGMA
    sigma = max(sigma, spread(gains) / unit)
    return RelativeGain(rule.in_units(mean, level) / level, sigma / math.sqrt(count), count)


def spread(gains: Sequence[float]) -> float:
    """Sample sd of the gains of pairs; 0 for fewer than two.

    A noise floor is of pairs that run the same code: what a seed does to both arms cancels in them. Where the code
    differs it cancels in part, so a floor is the least that a pair's noise can be.
    """
    return stdev(gains) if len(gains) > 1 else 0.0


def confirmed_gain(evidence: Evidence, rule: Rule) -> RelativeGain:
    """The same over the confirming pairs alone: those that a verdict's reason speaks of."""
    return relative_gain(replace(evidence, pairs=evidence.of(Stage.CONFIRM)), rule)
