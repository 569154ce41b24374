"""The records of validation: frozen dataclasses that go into `decide` and come out of it.

Only standard library, so models and pages may import them. Arithmetic lives in `stats`, the procedure in
`rules`. Every record travels as JSON through `to_json` and `from_json`, which refuse what they do not know.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints


class VerdictKind(StrEnum):
    IMPROVED = "improved"
    WORSE = "worse"
    NO_DIFFERENCE = "no_difference"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"


class Stage(StrEnum):
    SCREEN = "screen"
    EXTEND = "extend"
    CONFIRM = "confirm"


class Direction(StrEnum):
    """Which way is better. Written once, in the benchmark's metric."""

    LOWER = "lower"
    HIGHER = "higher"

    def gain(self, baseline: float, candidate: float) -> float:
        """How much better the candidate is, in units of the metric: positive is better in both directions."""
        return baseline - candidate if self is Direction.LOWER else candidate - baseline


class Severity(StrEnum):
    """How much a finding weighs. Only STRUCTURAL makes a verdict invalid by itself."""

    INFO = "info"
    REVIEW = "review"
    STRUCTURAL = "structural"


class Record:
    """JSON for a frozen dataclass. An unknown, missing or mistyped key is a ValueError that names it."""

    def to_json(self) -> dict[str, Any]:
        return {name: _encode(value) for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        if not isinstance(data, Mapping):
            raise ValueError(f"{cls.__name__} must be an object, not {type(data).__name__}")
        known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]  # subclasses are dataclasses
        if unknown := sorted(set(data) - set(known)):
            raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}; it knows {', '.join(known)}")
        required = {name for name, field in known.items() if field.default is MISSING}
        if missing := sorted(required - set(data)):
            raise ValueError(f"{cls.__name__} needs {', '.join(missing)}")
        hints = get_type_hints(cls)
        return cls(**{name: _decode(hints[name], data[name], f"{cls.__name__}.{name}") for name in data})


@dataclass(frozen=True)
class Finding(Record):
    """One integrity observation. `evidence` holds lines a person can look up."""

    kind: str
    severity: Severity
    message: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rule(Record):
    """A decision procedure, fixed before an experiment runs. Sigma is that of a pair's difference.

    screen_pairs, extend_pairs: pairs measured before confirmation; zero of both goes straight to confirm.
    extend_sigma: the mean gain of those pairs must reach this many sigma. Sigma of a pair, not of a trial,
        because a pair is what is compared: 25 % of candidates without effect pass (three pairs), however
        strongly the two arms of a pair are correlated.
    clear_sigma: a screening gain of that many sigma skips extension. Confirmation uses fresh pairs alone, so its
        errors do not change; without effect 0.1 % of candidates pass here, and a large gain saves two pairs.
    looks: numbers of confirm pairs at which the evidence may be read; past the last they go on in its step.
    bar, worse_bar: e-value for the candidate, and against it, that settles the question of one experiment alone.
    alpha: share of false ones among all that a campaign calls improved; sets the bar of each experiment (e-LOND).
    effects: standardised effects (in sigma) over which the e-value averages with equal weight.
    futility_*: from that many pairs on, stop when the mean is below so many sigma, or the e-value this low.
    noise_trials: A/A trials without which nothing is confirmed.
    level: each end of the interval is wrong, at any look, with at most this probability. At 1 / bar the
        interval and the verdict agree: `improved` has its low end at or above zero.
    shrink_tau: prior sd of real gains in sigma. 1.0 by simulation: over campaigns of 200 candidates the
        shrunk gains sum to 97 % of the real ones, the raw means to 113 %.
    """

    direction: Direction
    name: str = "funnel"
    screen_pairs: int = 1
    extend_pairs: int = 2
    extend_sigma: float = 0.4
    clear_sigma: float = 3.0
    looks: tuple[int, ...] = (4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24)
    bar: float = 20.0
    worse_bar: float = 20.0
    alpha: float = 0.1
    near_miss_e: float = 3.0
    effects: tuple[float, ...] = (0.5, 0.8, 1.2, 1.6, 2.2, 3.0)
    futility_from: int = 8
    futility_sigma: float = 0.25
    futility_e: float = 0.1
    noise_trials: int = 12
    level: float = 0.05
    shrink_tau: float = 1.0

    def __post_init__(self) -> None:
        increasing = all(a < b for a, b in zip(self.looks, self.looks[1:], strict=False))
        checks = {
            "looks must rise and start at 2 or more": bool(self.looks) and self.looks[0] >= 2 and increasing,
            "effects must be positive": bool(self.effects) and min(self.effects) > 0,
            "bar and worse_bar must be above 1": min(self.bar, self.worse_bar) > 1,
            "screen_pairs must not be negative": self.screen_pairs >= 0,
            "extend_pairs must not be negative": self.extend_pairs >= 0,
            "extend_pairs needs screen_pairs": self.screen_pairs > 0 or self.extend_pairs == 0,
            "noise_trials must be at least 4": self.noise_trials >= 4,
            "level must lie between 0 and 1": 0 < self.level < 1,
            "alpha must lie between 0 and 1": 0 < self.alpha < 1,
            "shrink_tau must be positive": self.shrink_tau > 0,
        }
        if broken := [message for message, holds in checks.items() if not holds]:
            raise ValueError(f"rule {self.name}: {'; '.join(broken)}")

    def campaign_bar(self, turn: int, confirmed: int) -> float:
        """The e-value that the campaign asks of its `turn`-th hypothesis (from 1), so many confirmed before it."""
        from research.validation import stats  # numpy: not for the web process

        return stats.elond_bar(self.alpha, None, turn, confirmed)

    def next_look(self, pairs: int) -> int:
        """The first look after `pairs` confirm pairs; past the last one the looks go on in the same step."""
        if pairs < self.looks[-1]:
            return next(look for look in self.looks if look > pairs)
        step = self.look_step
        return self.looks[-1] + ((pairs - self.looks[-1]) // step + 1) * step

    def is_look(self, pairs: int) -> bool:
        return pairs > 0 and self.next_look(pairs - 1) == pairs

    @property
    def look_step(self) -> int:
        return self.looks[-1] - self.looks[-2] if len(self.looks) > 1 else 2


@dataclass(frozen=True)
class PairedScore(Record):
    """The scores of one seed on both arms. A trial without a score (failed, diverged) makes no pair."""

    stage: Stage
    pair: int
    seed: int
    baseline: float
    candidate: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.baseline) and math.isfinite(self.candidate)):
            raise ValueError(f"{self.stage} pair {self.pair} has a score that is not a finite number")


@dataclass(frozen=True)
class NoiseFloor(Record):
    """What A/A trials say about a benchmark on a machine class.

    sigma_trial, sigma_pair: sd of a trial's score and of the difference within a pair, in metric units.
    drift: how far the level moved from the first pair to the last, in sigma_trial.
    trials: how many A/A trials were measured.
    """

    sigma_trial: float
    sigma_pair: float
    drift: float
    trials: int

    def minimum_detectable_effect(self, rule: Rule) -> float:
        """The true gain, in metric units, that the rule confirms with power 0.8 within its last look.

        Infinite where no gain reaches the bar. Counts futility stops, not the screening before.
        """
        # Imported here to keep numpy out of the web process until a number is asked for.
        from research.validation import stats

        return stats.minimum_detectable_effect(rule) * self.sigma_pair


@dataclass(frozen=True)
class Evidence(Record):
    """All that a decision may use, frozen.

    bar: the campaign's bar for this hypothesis; None means the rule's own.
    wanted: confirm pairs that a person asked for. Until then nothing stops for futility or at the last look,
        and the same e-process goes on.
    """

    pairs: tuple[PairedScore, ...]
    noise: NoiseFloor | None
    findings: tuple[Finding, ...] = ()
    bar: float | None = None
    wanted: int = 0

    def __post_init__(self) -> None:
        """Pairs must be independent: one seed measured twice would count the same luck twice."""
        places = [(pair.stage, pair.pair) for pair in self.pairs]
        seeds = [pair.seed for pair in self.pairs]
        if len(set(places)) < len(places):
            raise ValueError("a pair appears twice in the evidence")
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed appears twice in the evidence: every pair needs a fresh one")

    def gains(self, direction: Direction, *stages: Stage) -> tuple[float, ...]:
        """Gains of the pairs of these stages, in pair order."""
        chosen = sorted((pair for pair in self.pairs if pair.stage in stages), key=lambda pair: pair.pair)
        return tuple(direction.gain(pair.baseline, pair.candidate) for pair in chosen)

    @property
    def structural(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is Severity.STRUCTURAL)

    @property
    def stage(self) -> Stage:
        """The furthest stage that has a pair."""
        reached = {pair.stage for pair in self.pairs}
        return next((stage for stage in reversed(Stage) if stage in reached), Stage.SCREEN)


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

    effect: mean gain in metric units, positive is better; shrunk: the same after shrinkage; low, high:
    anytime interval of the gain, None where the pairs bound nothing yet. Before confirm only `effect` is
    known, from screening pairs, and e_value and e_against are 1: screening counts as no evidence.
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


def _encode(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    return value.value if isinstance(value, StrEnum) else value


def _decode(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is UnionType:
        inner, _ = get_args(hint)
        return None if value is None else _decode(inner, value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, not {value!r}")
        return tuple(_decode(get_args(hint)[0], item, where) for item in value)
    if issubclass(hint, Record):
        return hint.from_json(value)
    if issubclass(hint, StrEnum):
        return _decode_choice(hint, value, where)
    return _decode_plain(hint, value, where)


def _decode_choice(hint: type[StrEnum], value: Any, where: str) -> StrEnum:
    try:
        return hint(value)
    except ValueError:
        raise ValueError(f"{where} must be one of {', '.join(hint)}, not {value!r}") from None


def _decode_plain(hint: Any, value: Any, where: str) -> Any:
    accepted = (int, float) if hint is float else (hint,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{where} must be {hint.__name__}, not {value!r}")
    if hint is float and not math.isfinite(value):
        raise ValueError(f"{where} must be a finite number, not {value!r}")
    return float(value) if hint is float else value
