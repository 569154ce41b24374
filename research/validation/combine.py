"""What measurements say beside each other: a combination and its parts, a champion without each change, kept promises.

Records for pages, and the arithmetic behind them. None of it is part of a verdict. Gains are in units of the metric,
positive is better; every interval is the anytime interval of `stats`, so its ends each hold with the rule's level.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from research.validation.records import Record, Rule


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


def measured(label: str, gains: Sequence[float], rule: Rule) -> Measured:
    """The mean of these gains, with its anytime interval."""
    if not gains:
        return Measured(label, None, None, None, 0)
    from research.validation import stats  # numpy: not for the web process until a number is asked for

    low, high = stats.anytime_interval(gains, rule.level, rule.effects) or (None, None)
    return Measured(label, sum(gains) / len(gains), low, high, len(gains))


def interaction(
    parts: Sequence[tuple[str, Sequence[float]]], together: tuple[str, Sequence[float]], rule: Rule
) -> Interaction | None:
    """Parts and their combination; None before each has a pair.

    Every arm counts with its first n pairs, n being what the shortest has: how many pairs a verdict took depends on
    what they said, its first ones do not. The i-th pairs of all make one surplus; there are n independent ones, and
    their interval is far narrower than the difference of the single intervals would be, and holds exactly.
    """
    count = min(len(gains) for _, gains in (*parts, together))
    if count == 0:
        return None
    label, whole = together
    columns = [gains[:count] for _, gains in parts]
    surplus = measured("surplus", [whole[i] - sum(column[i] for column in columns) for i in range(count)], rule)
    alone = tuple(measured(name, gains[:count], rule) for name, gains in parts)
    all_together = measured(label, whole[:count], rule)
    expected = sum(part.effect or 0.0 for part in alone)
    more = (all_together.effect or 0.0) - expected
    return Interaction(alone, all_together, expected, more, surplus.low, surplus.high)


def _side(value: float, low: float | None, high: float | None) -> int:
    """Where an interval lies: 1 above the value, −1 below it, 0 around it or unknown."""
    if low is None or high is None:
        return 0
    return (low > value) - (high < value)
