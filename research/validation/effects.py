"""The size of an effect for memory and tables: relative to the baseline, over all pairs of all stages.

Not evidence: screening pairs are in it. A verdict rests on `rules.decide` alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from research.validation.records import Evidence, Rule

UNKNOWN_SIGMA = 0.01  # relative noise of a pair, where no floor has been measured yet


class RelativeGain(NamedTuple):
    mean: float | None  # share of the baseline's mean score, positive is better
    error: float | None  # standard error of `mean`
    pairs: int


def relative_gain(evidence: Evidence, rule: Rule) -> RelativeGain:
    if not evidence.pairs:
        return RelativeGain(None, None, 0)
    count = len(evidence.pairs)
    level = sum(pair.baseline for pair in evidence.pairs) / count
    mean = sum(rule.direction.gain(pair.baseline, pair.candidate) for pair in evidence.pairs) / count / level
    sigma = evidence.noise.sigma_pair / level if evidence.noise else UNKNOWN_SIGMA
    return RelativeGain(mean, sigma / math.sqrt(count), count)
