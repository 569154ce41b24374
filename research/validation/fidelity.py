"""Two fidelities: what a short preset that screens says of the longer one that confirms, over techniques with both.

A point is one technique: its mean gain in screening and its mean gain at the project's own preset, each on the rule's
scale. Confirmation is chosen by the screening gain, which leaves the regression on that gain unbiased but narrows its
range, so the rank correlation over confirmed techniques alone understates; `manage.py fidelity --measure` adds
techniques that were screened out. Pure; needs numpy when a relation is asked for. None of it is evidence.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from research.validation.records import LEAST_TECHNIQUES, NoiseFloor, Relation, Rule
from research.validation.wire import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

DRAWS, SEED = 1_000, 20_261_126
MOST_POINTS = 60  # the newest count: what a preset foretells may change with the champion
RANGE = (0.025, 0.975)  # of the reported intervals
CROSSING = 0.1  # the quantile of the crossing that is used: in doubt more candidates go on
FIRST_PAIRS = 4  # confirm pairs of a point: how many a verdict took depends on what they said, its first ones do not


@dataclass(frozen=True)
class Point(Record):
    """One technique at both fidelities. `confirmed_pairs`: how many pairs its second gain is the mean of."""

    label: str
    screened: float
    confirmed: float
    screened_pairs: int
    confirmed_pairs: int
    was_confirmed: bool  # by the rule; else it was measured to see what screening missed


def target_of(noise: NoiseFloor, rule: Rule) -> float:
    """The least gain at the longer fidelity that confirmation does not stop for futility, on the rule's scale."""
    return rule.futility_sigma * noise.sigma_pair


def relate(points: Sequence[Point], target: float | None = None, draws: int = DRAWS) -> Relation | None:
    """Rank correlation and line over techniques with bootstrap intervals; None below LEAST_TECHNIQUES of them.

    `target`: where the line is asked for its crossing, see `Relation.least`.
    """
    kept = tuple((point.screened, point.confirmed) for point in points[-MOST_POINTS:])
    return _relate(kept, target, draws) if len(kept) >= LEAST_TECHNIQUES else None


@lru_cache(maxsize=64)
def _relate(points: tuple[tuple[float, float], ...], target: float | None, draws: int) -> Relation:
    import numpy as np

    data = np.asarray(points, dtype=float)
    slopes = _pairwise(data)
    rank = spearman(data[:, 0], data[:, 1])
    slope, intercept = _line(data, slopes)
    random = np.random.default_rng(SEED)
    ranks, lines = [], []
    for _ in range(draws):
        chosen = random.integers(0, len(data), len(data))
        drawn = data[chosen]
        ranks.append(spearman(drawn[:, 0], drawn[:, 1]))
        lines.append(_line(drawn, slopes[np.ix_(chosen, chosen)]))
    fitted = np.asarray(lines)
    rank_low, rank_high = _quantiles(np.asarray(ranks), RANGE)
    slope_low, slope_high = _quantiles(fitted[:, 0], RANGE)
    return Relation(
        techniques=len(data), rank=rank, rank_low=rank_low, rank_high=rank_high,
        slope=slope, slope_low=slope_low, slope_high=slope_high, intercept=intercept,
        least=None if target is None else _least(fitted, target),
    )  # fmt: skip


def spearman(first: "Array", second: "Array") -> float:
    """The correlation of ranks, ties at their mean rank; 0 where one side does not vary."""
    import numpy as np

    one, other = _ranks(first), _ranks(second)
    one, other = one - one.mean(), other - other.mean()
    size = math.sqrt(float(one @ one) * float(other @ other))
    return float(np.clip(one @ other / size, -1, 1)) if size > 0 else 0.0


def _ranks(values: "Array") -> "Array":
    import numpy as np

    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks: Array = ((last - count + last - 1) / 2)[place]
    return ranks


def _pairwise(data: "Array") -> "Array":
    """Slopes between all pairs of points (n, n); nan where both have the same first gain."""
    import numpy as np

    run = data[:, 0][:, None] - data[:, 0][None, :]
    rise = data[:, 1][:, None] - data[:, 1][None, :]
    slopes: Array = np.divide(rise, run, out=np.full_like(run, np.nan), where=run != 0)
    return slopes


def _line(data: "Array", slopes: "Array") -> tuple[float, float]:
    """(slope, intercept) by Theil and Sen: medians, so that one large gain does not set the line for all small ones."""
    import numpy as np

    known = slopes[~np.isnan(slopes)]
    slope = float(np.median(known)) if known.size else 0.0
    return slope, float(np.median(data[:, 1] - slope * data[:, 0]))


def _least(lines: "Array", target: float) -> float | None:
    """The low end of where the drawn lines reach the target; None where most of them fall or never do."""
    import numpy as np

    slopes, intercepts = lines[:, 0], lines[:, 1]
    rising = slopes > 0
    if rising.mean() < 0.5:
        return None
    crossings = np.full(len(lines), np.inf)
    crossings[rising] = (target - intercepts[rising]) / slopes[rising]
    low = float(np.quantile(crossings, CROSSING, method="lower"))
    return low if math.isfinite(low) else None


def _quantiles(values: "Array", at: tuple[float, float]) -> tuple[float, float]:
    import numpy as np

    low, high = np.quantile(values, at)
    return float(low), float(high)
