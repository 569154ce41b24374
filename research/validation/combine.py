"""What measurements say beside each other: a combination and its parts, a champion without each change, kept promises.

Records for pages, and the arithmetic behind them. None of it is part of a verdict. Gains are in units of the metric,
positive is better; every interval is an anytime interval as in a verdict, so its ends each hold with the rule's level.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from research.validation.reading import weigh
from research.validation.records import PairedScore, Rule
from research.validation.wire import Record

Pairs = Sequence[PairedScore]


@dataclass(frozen=True)
class Measured(Record):
    """A mean gain over so many pairs; None where no pair, or not enough of them to bound it, was measured."""

    label: str
    effect: float | None
    low: float | None
    high: float | None
    pairs: int


@dataclass(frozen=True)
class Interaction(Record):
    """Changes alone and together, each against the same commit, over as many pairs each.

    expected: sum of the parts. surplus: together − expected, with its interval; above zero they help each other.
    """

    parts: tuple[Measured, ...]
    together: Measured
    expected: float
    surplus: float
    low: float | None
    high: float | None

    @property
    def sign(self) -> int:
        """1 where they are shown to help each other, −1 where to harm each other, 0 where neither is shown."""
        return _side(0.0, self.low, self.high)


@dataclass(frozen=True)
class AblationRow(Record):
    """What the champion loses without one of its changes. `refusal`: why it could not be built without it."""

    label: str
    loss: Measured
    refusal: str = ""

    @property
    def sign(self) -> int:
        """1 where the change is shown to be worth something, −1 where to do harm, 0 where neither is shown."""
        return _side(0.0, self.loss.low, self.loss.high)


@dataclass(frozen=True)
class Calibration(Record):
    """After so many merges: what their verdicts promised (the sum of shrunk gains), and what the champion gained."""

    merges: int
    promised: float
    realised: Measured

    @property
    def sign(self) -> int:
        """1 where more came out than was promised, −1 where less, 0 where the promise lies within the interval."""
        return _side(self.promised, self.realised.low, self.realised.high)


def measured(label: str, pairs: Pairs, rule: Rule) -> Measured:
    """The mean gain of these pairs under the rule, with its anytime interval."""
    if not pairs:
        return Measured(label, None, None, None, 0)
    weight, level = weigh(pairs, rule), _level(pairs, rule)
    low, high = _in_units(weight.interval, level, rule)
    return Measured(label, rule.in_units(weight.gain, level), low, high, len(pairs))


def lost(label: str, pairs: Pairs, rule: Rule) -> Measured:
    """What the candidate's arm is worse by: `measured`, the other way round."""
    gain = measured(label, pairs, rule)
    if gain.effect is None:
        return gain
    low, high = (None if end is None else -end for end in (gain.high, gain.low))
    return Measured(label, -gain.effect, low, high, gain.pairs)


def interaction(parts: Sequence[tuple[str, Pairs]], together: tuple[str, Pairs], rule: Rule) -> Interaction | None:
    """Parts and their combination; None before each has a pair.

    Every arm counts with its first n pairs, n being what the shortest has: how many pairs a verdict took depends on
    what they said, its first ones do not. The i-th pairs of all make one surplus; there are n independent ones, and
    their interval is far narrower than the difference of the single intervals would be, and holds exactly. Gains add up
    on the rule's scale: as logs, where times are compared.
    """
    from research.validation import stats  # numpy: not for the web process until a number is asked for

    count = min(len(pairs) for _, pairs in (*parts, together))
    if count == 0:
        return None
    arms = [pairs[:count] for _, pairs in (*parts, together)]
    *alone, whole = ([rule.gain(pair) for pair in pairs] for pairs in arms)
    sums = [sum(gains) for gains in zip(*alone, strict=True)]
    surplus = [both - single for both, single in zip(whole, sums, strict=True)]
    capped = any(pair.is_censored for pairs in arms for pair in pairs)  # a mean of times at the cap bounds nothing
    interval = None if capped else stats.anytime_interval(surplus, rule.level, rule.effects)
    level = _level(arms[-1], rule)
    low, high = _in_units(interval, level, rule)
    return Interaction(
        parts=tuple(measured(name, pairs[:count], rule) for name, pairs in parts),
        together=measured(together[0], arms[-1], rule),
        expected=rule.in_units(math.fsum(sums) / count, level),
        surplus=rule.in_units(math.fsum(surplus) / count, level),
        low=low,
        high=high,
    )


def _level(pairs: Pairs, rule: Rule) -> float:
    return rule.mean_score([pair.baseline for pair in pairs])


def _in_units(interval: tuple[float, float] | None, level: float, rule: Rule) -> tuple[float | None, float | None]:
    """An interval on the rule's scale as metric units; an end that bounds nothing is None."""
    low, high = (rule.in_units(end, level) if math.isfinite(end) else None for end in interval or (math.inf, math.inf))
    return low, high


def _side(value: float, low: float | None, high: float | None) -> int:
    """Where an interval lies: 1 above the value, −1 below it, 0 around it or unknown."""
    if low is None or high is None:
        return 0
    return (low > value) - (high < value)
