"""What comes out of `decide`: more pairs, a wait for the noise floor, or the verdict; and verdicts pooled.

Only standard library, like `records`.
"""

from dataclasses import dataclass

from research.validation.records import Stage, VerdictKind
from research.validation.wire import Record


@dataclass(frozen=True)
class MorePairs(Record):
    """Go on: `pairs` is the total wanted in that stage, not the number to add."""

    stage: Stage
    pairs: int
    reason: str


@dataclass(frozen=True)
class WaitForNoise(Record):
    reason: str


@dataclass(frozen=True)
class Verdict(Record):
    """How an experiment ended.

    effect: mean gain in metric units (by ratio: at the baselines' geometric mean), positive is better; shrunk: the
    same after shrinkage; low, high: anytime interval of the gain, None where the pairs bound nothing yet. Before
    confirm only `effect` is known, from screening pairs, and e_value and e_against are 1: screening is no evidence.
    p_value: of the rules that read once; their verdict rests on it, not on the e-value.
    """

    kind: VerdictKind
    stage: Stage
    effect: float | None
    shrunk: float | None
    low: float | None
    high: float | None
    e_value: float
    e_against: float
    bar: float
    pairs: int
    near_miss: bool
    reason: str
    p_value: float | None = None


@dataclass(frozen=True)
class Pooled(Record):
    """What the confirm pairs of an experiment and of its replicates say together.

    effect, low, high: mean gain and its anytime interval in metric units; relative: effect as a share of the
    baselines' mean score. bar: what the e-value has to reach, as in the verdict.
    """

    pairs: int
    effect: float
    relative: float
    low: float | None
    high: float | None
    e_value: float
    e_against: float
    bar: float
