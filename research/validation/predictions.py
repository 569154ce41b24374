"""Effects predicted before measuring, scored against what was measured: bias, error, order, and who was confirmed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from research.validation.wire import Record
from research.validation.yields import Outcome, Tried

QUANTILES = 4


@dataclass(frozen=True)
class Quantile(Record):
    """Ideas whose predicted effect lies in one part of all predictions, lowest first."""

    low: float
    high: float
    ideas: int
    confirmed: int


@dataclass(frozen=True)
class Predicted(Record):
    """How well one researcher or model predicts. None where too little was measured.

    bias: mean of predicted − measured, above zero it promises too much. order: Spearman's rank correlation.
    failed: invalid ideas; they have no effect to score, so they are counted and not plotted.
    """

    who: str
    scored: int
    failed: int
    bias: float | None
    error: float | None  # mean absolute
    order: float | None
    quantiles: tuple[Quantile, ...]

    def summary(self) -> dict[str, object]:
        return {
            "who": self.who, "scored": self.scored, "failed": self.failed, "bias": self.bias,
            "mean_absolute_error": self.error, "rank_correlation": self.order,
            "confirmed_by_quantile": [quantile.to_json() for quantile in self.quantiles],
        }  # fmt: skip


def shrunk(effect: float, pairs: int, tau: float) -> float:
    """A mean over `pairs`, shrunk as a verdict shrinks it: prior sd of real gains `tau` sigmas of one pair."""
    return effect * pairs / (pairs + tau**-2) if pairs else 0.0


def scored(tried: Sequence[Tried]) -> list[Tried]:
    return [one for one in tried if one.measured is not None and one.outcome is not Outcome.FAILED]


def predictions(tried: Sequence[Tried]) -> list[Predicted]:
    """One row for each who, the most scored first."""
    names = sorted({one.who for one in tried})
    rows = [predicted(name, [one for one in tried if one.who == name]) for name in names]
    return sorted((row for row in rows if row.scored or row.failed), key=lambda row: (-row.scored, row.who))


def predicted(who: str, tried: Sequence[Tried]) -> Predicted:
    known = scored(tried)
    pairs = [(one.predicted, one.measured) for one in known if one.measured is not None]
    return Predicted(
        who=who,
        scored=len(known),
        failed=sum(one.outcome is Outcome.FAILED for one in tried),
        bias=fmean(said - came for said, came in pairs) if pairs else None,
        error=fmean(abs(said - came) for said, came in pairs) if pairs else None,
        order=rank_correlation([said for said, _ in pairs], [came for _, came in pairs]),
        quantiles=quantiles(known),
    )


def quantiles(known: Sequence[Tried]) -> tuple[Quantile, ...]:
    """Quarters of the predictions, fewer where there are not two ideas for each. Equal predictions stay together."""
    ranked = sorted(known, key=lambda one: one.predicted)
    parts = min(QUANTILES, len({one.predicted for one in ranked}), len(ranked) // 2)
    found: list[Quantile] = []
    first = 0
    for number in range(1, parts + 1):
        last = max(first, round(len(ranked) * number / parts))
        while 0 < last < len(ranked) and ranked[last].predicted == ranked[last - 1].predicted:
            last += 1
        if group := ranked[first:last]:
            confirmed = sum(one.outcome is Outcome.CONFIRMED for one in group)
            found.append(Quantile(group[0].predicted, group[-1].predicted, len(group), confirmed))
        first = last
    return tuple(found)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's, ties at their mean rank; None below three pairs or where one side is all the same."""
    if len(first) < 3:
        return None
    one, two = _ranks(first), _ranks(second)
    middle = (len(one) + 1) / 2
    spread = math.sqrt(math.fsum((a - middle) ** 2 for a in one) * math.fsum((b - middle) ** 2 for b in two))
    return math.fsum((a - middle) * (b - middle) for a, b in zip(one, two, strict=True)) / spread if spread else None


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda at: values[at])
    ranks = [0.0] * len(values)
    at = 0
    while at < len(order):
        end = at
        while end + 1 < len(order) and values[order[end + 1]] == values[order[at]]:
            end += 1
        for place in order[at : end + 1]:
            ranks[place] = (at + end) / 2 + 1
        at = end + 1
    return ranks
