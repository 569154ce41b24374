"""The records of validation: frozen dataclasses that go into `decide`. What comes out of it lives in `outcomes`.

Only standard library, so models and pages may import them. Arithmetic lives in `stats`, the procedure in
`rules`; every record travels as JSON (`wire`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from research.validation.wire import Record

TIME_UNITS = ("s", "ms", "us", "µs", "ns", "sec", "seconds", "min", "minutes", "h", "hours")
RATIO_UNIT = "x"  # times a reference
LARGEST_LOG = 700.0  # exp(709) is the last finite double
LEAST_TECHNIQUES = 10  # measured at both fidelities, before what one foretells of the other has a say
USUAL_DRIFT_ERROR = 0.845  # of six pairs whose arms are independent


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


class Scale(StrEnum):
    """On which scale two scores are compared: by their difference, or, for times and ratios, by the log of theirs."""

    LINEAR = "linear"
    LOG = "log"

    @classmethod
    def of_unit(cls, unit: str) -> Self:
        """Of times, and of how many times a reference something is, LOG."""
        return cls("log" if unit.strip() in (*TIME_UNITS, RATIO_UNIT) else "linear")

    def place(self, score: float) -> float:
        if self is Scale.LINEAR:
            return score
        if score <= 0:
            raise ValueError(f"a score compared by ratio must be above 0, not {score:g}")
        return math.log(score)


class Procedure(StrEnum):
    """Which procedure decides: `rules` has the first, `fixed` the others."""

    FUNNEL = "funnel"  # screen, extend, confirm by e-values
    PAIRS = "pairs"  # so many fresh pairs, read once, by a paired t-test
    TARGET = "target"  # so many runs of the candidate, read once, against a score set beforehand


class Severity(StrEnum):
    """How much a finding weighs. Only STRUCTURAL makes a verdict invalid by itself."""

    INFO = "info"
    REVIEW = "review"
    STRUCTURAL = "structural"


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
    hurdle_range: in sigma, between which a measured relation of two fidelities may move that hurdle.
    looks: numbers of confirm pairs at which the evidence may be read; past the last they go on in its step.
    bar, worse_bar: e-value for the candidate, and against it, that settles the question of one experiment alone.
    alpha: share of false ones among all that a campaign calls improved; sets the bar of each experiment (e-LOND).
    effects: standardised effects (in sigma) over which the e-value averages with equal weight.
    futility_*: from that many pairs on, stop when the mean is below so many sigma, or the e-value this low.
    noise_trials: A/A trials without which nothing is confirmed.
    level: each end of the interval is wrong, at any look, with at most this probability. At 1 / bar the
        interval and the verdict agree: `improved` has its low end at or above zero.
    shrink_tau, large_tau, large_share: the prior of real gains is two normals around zero with these sds, in sigma;
        `large_share` belongs to the wider one. By simulation (200 campaigns of 200 candidates, gains of up to three
        sigma) the shrunk gains sum to 98 % of the real ones, the raw means to 107 %.
    scale: gains are differences, or logs of ratios (times).
    censored_share: the share of the evidence staked on the signs of the pairs, for runs that may hit a cap. Once one
        has, only this share counts: see `reading`.
    procedure: which one decides. The fixed ones read the first number of `looks` once, at p < p_bar one-sided.
    target: of the procedure TARGET: the score that the candidate's mean has to beat.
    """

    direction: Direction
    name: str = "funnel"
    screen_pairs: int = 1
    extend_pairs: int = 2
    extend_sigma: float = 0.4
    hurdle_range: tuple[float, ...] = (0.0, 1.0)
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
    large_share: float = 0.05
    large_tau: float = 10.0
    procedure: Procedure = Procedure.FUNNEL
    scale: Scale = Scale.LINEAR
    censored_share: float = 0.0
    p_bar: float = 0.01
    target: float | None = None

    def __post_init__(self) -> None:
        increasing = all(a < b for a, b in zip(self.looks, self.looks[1:], strict=False))
        checks = {
            "looks must rise and start at 2 or more": bool(self.looks) and self.looks[0] >= 2 and increasing,
            "effects must be positive": bool(self.effects) and min(self.effects) > 0,
            "bar and worse_bar must be above 1": min(self.bar, self.worse_bar) > 1,
            "screen_pairs must not be negative": self.screen_pairs >= 0,
            "extend_pairs must not be negative": self.extend_pairs >= 0,
            "hurdle_range must be two rising numbers": len(self.hurdle_range) == 2
            and 0 <= self.hurdle_range[0] <= self.hurdle_range[1],
            "extend_pairs needs screen_pairs": self.screen_pairs > 0 or self.extend_pairs == 0,
            "noise_trials must be at least 4": self.noise_trials >= 4,
            "level must lie between 0 and 1": 0 < self.level < 1,
            "alpha must lie between 0 and 1": 0 < self.alpha < 1,
            "shrink_tau and large_tau must be positive": min(self.shrink_tau, self.large_tau) > 0,
            "large_share must lie between 0 and 1": 0 < self.large_share < 1,
            "p_bar must lie between 0 and 0.5": 0 < self.p_bar < 0.5,
            "censored_share must be 0 or more and below 1": 0 <= self.censored_share < 1,
            "a target belongs to the procedure target": (self.target is None) != (self.procedure is Procedure.TARGET),
        }
        if broken := [message for message, holds in checks.items() if not holds]:
            raise ValueError(f"rule {self.name}: {'; '.join(broken)}")

    def campaign_bar(self, turn: int, confirmed: int) -> float:
        """The e-value that the campaign asks of its `turn`-th hypothesis (from 1), so many confirmed before it."""
        from research.validation import stats  # numpy: not for the web process

        return stats.elond_bar(self.alpha, None, turn, confirmed)

    def gain(self, pair: "PairedScore") -> float:
        """How much better the candidate did, on the rule's scale. Two runs at the cap tie; at the cap none is ahead."""
        if pair.baseline_censored and pair.candidate_censored:
            return 0.0
        gain = self.direction.gain(self.scale.place(pair.baseline), self.scale.place(pair.candidate))
        return min(gain, 0.0) if pair.candidate_censored else gain

    def sign(self, pair: "PairedScore") -> int:
        """1 where the candidate did better, -1 where worse; a candidate alone at the cap did worse."""
        if pair.candidate_censored and not pair.baseline_censored:
            return -1
        gain = self.gain(pair)
        return (gain > 0) - (gain < 0)

    def mean_score(self, scores: Sequence[float]) -> float:
        """The mean score, on the rule's scale: the geometric mean of times."""
        mean = math.fsum(self.scale.place(score) for score in scores) / len(scores)
        return math.exp(mean) if self.scale is Scale.LOG else mean

    def in_units(self, gain: float, level: float) -> float:
        """A gain on the rule's scale as metric units at this level of the baseline."""
        if self.scale is Scale.LINEAR:
            return gain
        sign = -1 if self.direction is Direction.LOWER else 1
        return sign * level * math.expm1(min(sign * gain, LARGEST_LOG))

    def from_units(self, gain: float, level: float) -> float:
        """The inverse of `in_units`. A gain of the whole level or more is the largest log there is."""
        if self.scale is Scale.LINEAR:
            return gain
        sign = -1 if self.direction is Direction.LOWER else 1
        share = sign * gain / level
        return sign * math.log1p(share) if share > -1 else sign * -LARGEST_LOG

    def words(self, gain: float) -> str:
        """A gain on the rule's scale for a sentence: a number, or a share of the baseline."""
        return f"{gain:.4g}" if self.scale is Scale.LINEAR else f"{100 * self.in_units(gain, 1.0):.3g} %"

    @property
    def is_sequential(self) -> bool:
        """Whether it reads e-values against the campaign's bar; the other procedures read a p-value once."""
        return self.procedure is Procedure.FUNNEL

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
    """The scores of one seed on both arms. A trial without a score (failed, diverged) makes no pair.

    *_censored: that run hit its cap; its score is the cap, and the true one is at least as bad.
    """

    stage: Stage
    pair: int
    seed: int
    baseline: float
    candidate: float
    baseline_censored: bool = False
    candidate_censored: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.baseline) and math.isfinite(self.candidate)):
            raise ValueError(f"{self.stage} pair {self.pair} has a score that is not a finite number")

    @property
    def is_censored(self) -> bool:
        return self.baseline_censored or self.candidate_censored


@dataclass(frozen=True)
class NoiseFloor(Record):
    """What A/A trials say about a benchmark on a machine class.

    sigma_trial, sigma_pair: sd of a trial's score and of the difference within a pair, in metric units.
    drift: how far the level moved from the first pair to the last, in sigma_trial; drift_error: its sd by noise alone.
    trials: how many A/A trials were measured.
    level: mean score of the trials, at which sigma is a share of the score; None in floors stored without one.
    freedom: degrees of freedom of sigma_pair; a pair without a known mean difference gives one.
    """

    sigma_trial: float
    sigma_pair: float
    drift: float
    trials: int
    level: float | None = None
    freedom: int | None = None
    drift_error: float | None = None

    @property
    def degrees(self) -> int:
        return self.freedom or max(self.trials // 2, 1)

    @property
    def drifts(self) -> bool:
        """Whether the level moved by more than twice what noise alone does."""
        return abs(self.drift) > 2 * (USUAL_DRIFT_ERROR if self.drift_error is None else self.drift_error)

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The sigmas of a pair that the trials allow: 95 %, by the chi-square distribution of their squares."""
        from research.validation import tails

        low, high = (tails.chi_square_quantile(share, self.degrees) for share in (0.025, 0.975))
        return self.sigma_pair * math.sqrt(self.degrees / high), self.sigma_pair * math.sqrt(self.degrees / low)

    def on_scale(self, rule: Rule, level: float) -> Self:
        """The same floor with sigmas on the rule's scale; `level` is used where the floor has none of its own."""
        if rule.scale is Scale.LINEAR:
            return self
        unit = self.level or level
        return replace(self, sigma_trial=self.sigma_trial / unit, sigma_pair=self.sigma_pair / unit)

    def minimum_detectable_effect(self, rule: Rule) -> float:
        """The true gain, in metric units, that the rule confirms with power 0.8 within its last look.

        Infinite where no gain reaches the bar. Counts futility stops, not the screening before.
        """
        # Imported here to keep numpy out of the web process until a number is asked for.
        from research.validation import stats

        sigma = self.sigma_trial if rule.procedure is Procedure.TARGET else self.sigma_pair
        gain = stats.minimum_detectable_effect(rule) * sigma
        if rule.scale is Scale.LINEAR or not self.level or math.isinf(gain):
            return gain
        return rule.in_units(gain / self.level, self.level)


@dataclass(frozen=True)
class Relation(Record):
    """What gains at a screening preset say of gains at the project's own, over so many techniques; see `fidelity`.

    rank: Spearman's correlation; slope, intercept: of the gain there per gain here, on the rule's scale; *_low, *_high:
    95 % by bootstrap over techniques. least: the screening gain from which on the line foretells a gain that
    confirmation would not stop for futility, the low end of its 80 % interval; None where no line says so.
    """

    techniques: int
    rank: float
    rank_low: float
    rank_high: float
    slope: float
    slope_low: float
    slope_high: float
    intercept: float
    least: float | None = None

    @property
    def is_shown(self) -> bool:
        """Whether screening is shown to foretell anything: the interval of the rank correlation lies above zero."""
        return self.rank_low > 0


@dataclass(frozen=True)
class Screening(Record):
    """Of evidence whose screening pairs were measured under another preset: its name, its floor, what it foretells."""

    preset: str
    noise: NoiseFloor | None
    relation: Relation | None = None


@dataclass(frozen=True)
class Evidence(Record):
    """All that a decision may use, frozen.

    screening: where the pairs before confirm come from another preset; None: from the same.
    bar: the campaign's bar for this hypothesis; None means the rule's own.
    wanted: confirm pairs that a person asked for. Until then nothing stops for futility or at the last look,
        and the same e-process goes on.
    """

    pairs: tuple[PairedScore, ...]
    noise: NoiseFloor | None
    findings: tuple[Finding, ...] = ()
    bar: float | None = None
    wanted: int = 0
    screening: Screening | None = None

    def __post_init__(self) -> None:
        """Pairs must be independent: one seed measured twice would count the same luck twice."""
        places = [(pair.stage, pair.pair) for pair in self.pairs]
        seeds = [pair.seed for pair in self.pairs]
        if len(set(places)) < len(places):
            raise ValueError("a pair appears twice in the evidence")
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed appears twice in the evidence: every pair needs a fresh one")

    def of(self, *stages: Stage) -> tuple[PairedScore, ...]:
        """The pairs of these stages, in pair order."""
        return tuple(sorted((pair for pair in self.pairs if pair.stage in stages), key=lambda pair: pair.pair))

    def gains(self, rule: Rule, *stages: Stage) -> tuple[float, ...]:
        """Gains of the pairs of these stages on the rule's scale, in pair order."""
        return tuple(rule.gain(pair) for pair in self.of(*stages))

    def level(self, rule: Rule, *stages: Stage) -> float:
        """The baselines' mean score in these stages; of all pairs where these have none."""
        return rule.mean_score([pair.baseline for pair in self.of(*stages) or self.pairs])

    @property
    def structural(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is Severity.STRUCTURAL)

    @property
    def stage(self) -> Stage:
        """The furthest stage that has a pair."""
        reached = {pair.stage for pair in self.pairs}
        return next((stage for stage in reversed(Stage) if stage in reached), Stage.SCREEN)
