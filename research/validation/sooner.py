"""The same quality sooner: at which budget one commit reaches what another has at the project's own.

A commit's quality against training time is measured, not read off a training curve: schedules end with their budget,
so each point is trials of their own with that budget. Between measured budgets the score is taken as straight in the
log of the time; nothing is said beyond them. Intervals are by bootstrap over the seeds of each budget: no evidence.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import TYPE_CHECKING

from research.validation.records import Direction
from research.validation.tails import student_quantile
from research.validation.wire import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

DRAWS, SEED = 2_000, 20_261_127
RANGE = (0.025, 0.975)


@dataclass(frozen=True)
class AtBudget(Record):
    """The scores of one commit at one budget, one a seed."""

    preset: str
    seconds: float
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return math.fsum(self.scores) / len(self.scores)

    @property
    def half(self) -> float | None:
        """Half the 95 % interval of the mean by Student's t; None for a single score."""
        return half_width(self.scores)


@dataclass(frozen=True)
class Sooner(Record):
    """`target` is what the slower commit has after `reference` seconds; the faster one reaches it after `seconds`.

    factor = reference / seconds, with a 95 % interval. at_least: it was there at its shortest budget already, so that
    the factor is a lower bound; never: it was not there at its longest one, and factor is None. A low end of 0 lies
    beyond the longest budget; beyond: the high end is where the shortest one puts it, so a bound too.
    """

    target: float
    reference: float
    seconds: float | None
    factor: float | None
    low: float | None
    high: float | None
    at_least: bool
    never: bool
    beyond: bool = False

    @property
    def words(self) -> str:
        at = f"what the start has after {self.reference:g} s"
        if self.never or self.factor is None:
            return f"{at} is not reached within the budgets that were measured"
        if self.at_least and self.factor <= 1:
            return f"{at} is there after {self.seconds:g} s, the shortest budget that was measured"
        if self.factor < 1:
            return f"{at} takes {self.seconds:.3g} s, {1 / self.factor:.3g} × as long"
        return f"{at}, {'at least ' if self.at_least else ''}{self.factor:.3g} × sooner{self.between}"

    @property
    def between(self) -> str:
        """The interval in brackets, with a space before it; empty where there is none."""
        if self.low is None or self.high is None:
            return ""
        high = f"{'at least ' if self.beyond else ''}{self.high:.3g}"
        low = f"{self.low:.3g}" if self.low > 0 else "beyond the longest budget measured"
        return f" ({low} to {high})"


def half_width(values: Sequence[float]) -> float | None:
    """Half the 95 % interval of a mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    return student_quantile(RANGE[0], len(values) - 1) * stdev(values) / math.sqrt(len(values))


def sooner(
    slow: Sequence[AtBudget], fast: Sequence[AtBudget], reference: float, direction: Direction, draws: int = DRAWS
) -> Sooner | None:
    """None where the slower commit was not measured at `reference` seconds, or the faster one not at all."""
    at = next((row for row in slow if math.isclose(row.seconds, reference)), None)
    curve = sorted(fast, key=lambda row: row.seconds)
    if at is None or not curve:
        return None
    import numpy as np

    random = np.random.default_rng(SEED)
    sign = 1.0 if direction is Direction.LOWER else -1.0
    times = np.array([row.seconds for row in curve])
    found = float(reached(times, np.array([[sign * row.mean for row in curve]]), np.array([sign * at.mean]))[0])
    targets = sign * _resampled(at.scores, draws, random)
    scores = np.stack([sign * _resampled(row.scores, draws, random) for row in curve], axis=-1)
    seconds = reached(times, scores, targets)  # inf where it is never reached
    many = len(at.scores) > 1 and all(len(row.scores) > 1 for row in curve)
    low, high = (reference / np.quantile(seconds, RANGE[::-1], method="nearest")) if many else (None, None)
    never, at_least = math.isinf(found), found <= times[0]
    if never or at_least:
        low = high = None  # a bound, or nothing, has no interval
    return Sooner(
        target=at.mean, reference=reference, seconds=None if never else found,
        factor=None if never else reference / found,
        low=None if low is None else float(low), high=None if high is None else float(high),
        at_least=bool(at_least), never=never,
        beyond=high is not None and bool(high >= (1 - 1e-9) * reference / times[0]),
    )  # fmt: skip


def reached(times: "Array", scores: "Array", targets: "Array") -> "Array":
    """When curves of falling scores (m, n) over rising times (n,) first reach their targets (m,); else inf."""
    import numpy as np

    there = scores <= targets[:, None]
    first = there.argmax(axis=-1)
    rows, before = np.arange(len(scores)), np.maximum(first - 1, 0)
    fall = scores[rows, before] - scores[rows, first]
    share = np.divide(scores[rows, before] - targets, fall, out=np.ones_like(fall), where=fall > 0)
    between = np.exp(np.log(times[before]) + share * np.log(times[first] / times[before]))
    found: Array = np.where(there.any(axis=-1), np.where(first == 0, times[0], between), np.inf)
    return found


def _resampled(scores: Sequence[float], draws: int, random: "np.random.Generator") -> "Array":
    """Means of so many samples with replacement (draws,)."""
    import numpy as np

    means: Array = np.asarray(scores)[random.integers(0, len(scores), (draws, len(scores)))].mean(axis=-1)
    return means
