"""The looks of an experiment once more: what its evidence said each time the rule read it, and what followed.

Recomputed from the frozen evidence alone, by the same `rules.decide` that decided then. Nothing is stored of a look, so
a page cannot tell another story than the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from research.validation import rules
from research.validation.outcomes import Verdict
from research.validation.records import Evidence, Rule, Stage, VerdictKind


@dataclass(frozen=True)
class Look:
    """What the first `pairs` confirm pairs say. Gains are in metric units, positive is better.

    kind: the verdict that the rule reaches here; None where it goes on. reason: its own words for either.
    """

    pairs: int
    mean: float
    shrunk: float
    low: float | None
    high: float | None
    e_value: float
    e_against: float
    kind: VerdictKind | None
    reason: str

    @property
    def is_futile(self) -> bool:
        """It stopped before it could tell."""
        return self.kind in (VerdictKind.INCONCLUSIVE, VerdictKind.NO_DIFFERENCE)


def looks(evidence: Evidence, rule: Rule, ended: bool = True) -> tuple[Look, ...]:
    """Every look so far, in order; none before the first, and none while the noise floor is not measured.

    Once `ended`, the last one covers all pairs, whether the rule would have looked there or not: a replicate is read
    when it has the pairs that were asked for, and a campaign may end between two looks.
    """
    confirm = sorted((pair for pair in evidence.pairs if pair.stage is Stage.CONFIRM), key=lambda pair: pair.pair)
    screened = tuple(pair for pair in evidence.pairs if pair.stage is not Stage.CONFIRM)
    counts = [count for count in range(1, len(confirm) + 1) if rule.is_look(count)]
    if ended and confirm and len(confirm) not in counts:
        counts.append(len(confirm))
    then = (replace(evidence, pairs=(*screened, *confirm[:count]), findings=()) for count in counts)
    return tuple(look for part in then if (look := _look(part, rule, len(part.pairs) - len(screened))) is not None)


def _look(evidence: Evidence, rule: Rule, pairs: int) -> Look | None:
    reading = rules.settle(evidence, rule)
    if not isinstance(reading, Verdict) or reading.effect is None or reading.shrunk is None:
        return None
    decision = rules.decide(evidence, rule) if rule.is_look(pairs) else reading
    return Look(
        pairs=pairs,
        mean=reading.effect,
        shrunk=reading.shrunk,
        low=reading.low,
        high=reading.high,
        e_value=reading.e_value,
        e_against=reading.e_against,
        kind=decision.kind if isinstance(decision, Verdict) else None,
        reason=decision.reason,
    )


def confirmed_before(rule: Rule, turn: int, bar: float) -> int:
    """How many the campaign had confirmed when its `turn`-th hypothesis was given this bar: e-LOND, solved for D."""
    from research.validation import stats

    return max(0, round(1 / (rule.alpha * stats.gamma(turn) * bar)) - 1)
