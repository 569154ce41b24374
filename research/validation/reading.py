"""What confirm pairs say under a rule: gain, interval, e-values; and the verdict that is written from it.

Runs that hit their cap. A time at the cap is known to be at least the cap, and no more: a mean of such times, and so a
t statistic, need not say which commit is faster. The sign of a pair does: with one arm at the cap the other was faster,
with both it is a tie. So a rule for times stakes its evidence beforehand, `censored_share` of it on the signs and the
rest on the t statistic, and reads

    (1 - share) * e of t                                  while no run has hit the cap
    min(share * e of the signs, (1 - share) * e of t)     from then on, capped runs counted at the cap

Valid: where the candidate is no better, P(e of t ever >= b) <= 1 / b and P(e of the signs ever >= b) <= 1 / b, each for
any looks (Ville). What is read reaches b only if e of t, of the pairs before the first cap, reaches b / (1 - share), or
e of the signs b / share: together at most (1 - share) / b + share / b = 1 / b, whenever the first cap is hit, however
that depends on the pairs. Without a stake, two chances of 1 / b each would add up to 2 / b. Taking the lower of the two
means that hitting the cap never raises what is read. Null of the signs: within a pair, given all earlier ones, the
candidate is ahead no more often than the baseline; it holds where the arms are exchangeable.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from research.validation.outcomes import Verdict
from research.validation.records import Evidence, NoiseFloor, PairedScore, Rule, Stage, VerdictKind


@dataclass(frozen=True)
class Weight:
    """Gains are on the rule's scale. `signs` is None where no run hit its cap."""

    gains: tuple[float, ...]
    signs: tuple[int, ...] | None
    gain: float
    interval: tuple[float, float] | None
    e_value: float
    e_against: float


@dataclass(frozen=True)
class Reading:
    """What the confirm pairs say at one look. `level` turns gains into metric units."""

    weight: Weight
    shrunk: float
    level: float

    @property
    def pairs(self) -> int:
        return len(self.weight.gains)

    @property
    def words(self) -> str:
        """Where runs hit the cap, the middle gain is told: a mean of capped times is none."""
        return "mean" if self.weight.signs is None else "median"


def weigh(pairs: Sequence[PairedScore], rule: Rule) -> Weight:
    """The evidence of these pairs, in the order they were measured."""
    # Imported here to keep numpy out of the web process until there is evidence to weigh.
    from research.validation import stats

    gains = tuple(rule.gain(pair) for pair in pairs)
    rest = 1 - rule.censored_share
    for_it, against = (rest * stats.e_value([sign * gain for gain in gains], rule.effects) for sign in (1, -1))
    if not any(pair.is_censored for pair in pairs):
        mean = math.fsum(gains) / len(gains) if gains else 0.0
        interval = stats.anytime_interval(gains, rule.level * rest, rule.effects)
        return Weight(gains, None, mean, interval, for_it, against)
    signs = tuple(rule.sign(pair) for pair in pairs)
    wins, losses = signs.count(1), signs.count(-1)
    bounds = [_bounds(pair, rule) for pair in pairs]
    share = rule.censored_share
    return Weight(
        gains=gains,
        signs=signs,
        gain=_middle(bounds, gains),
        interval=stats.sign_interval(bounds, 1 / (rule.level * share)) if share else None,
        e_value=min(share * stats.sign_e_value(wins, losses), for_it),
        e_against=min(share * stats.sign_e_value(losses, wins), against),
    )


def _bounds(pair: PairedScore, rule: Rule) -> tuple[float, float]:
    """Between which values the true gain of a pair lies."""
    gain = rule.gain(pair)
    return -math.inf if pair.candidate_censored else gain, math.inf if pair.baseline_censored else gain


def _middle(bounds: Sequence[tuple[float, float]], gains: Sequence[float]) -> float:
    """The median of the gains, each as low as it may be; where even that is unknown, the lowest that was seen."""
    middle = median(low for low, _ in bounds)
    return middle if math.isfinite(middle) else min(*gains, 0.0)


def read(evidence: Evidence, rule: Rule, noise: NoiseFloor) -> Reading:
    """`noise` on the rule's scale. Needs a confirm pair."""
    from research.validation import stats

    weight = weigh(evidence.of(Stage.CONFIRM), rule)
    kept = stats.shrinkage(weight.gains, noise.sigma_pair, rule)
    return Reading(weight, weight.gain * kept, evidence.level(rule, Stage.CONFIRM))


def concluded(
    kind: VerdictKind, reading: Reading, rule: Rule, bar: float, reason: str, p_value: float | None = None
) -> Verdict:
    """The verdict on confirm pairs, in metric units."""
    weight = reading.weight
    low, high = (rule.in_units(end, reading.level) for end in weight.interval) if weight.interval else (None, None)
    passed = kind is VerdictKind.IMPROVED
    return Verdict(
        kind=kind,
        stage=Stage.CONFIRM,
        effect=rule.in_units(weight.gain, reading.level),
        shrunk=rule.in_units(reading.shrunk, reading.level),
        low=low,
        high=high,
        e_value=weight.e_value,
        e_against=weight.e_against,
        bar=bar,
        pairs=reading.pairs,
        near_miss=not passed and reading.shrunk > 0 and weight.e_value >= rule.near_miss_e,
        reason=reason,
        p_value=p_value,
    )


def count_words(pairs: int) -> str:
    return f"{pairs} pair" if pairs == 1 else f"{pairs} pairs"
