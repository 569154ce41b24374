"""Campaigns with known truth: what a rule merges, what it misses and what it costs. Pure; seconds, not hours.

A world says how real gains are spread and how noisy trials are. Every rule sees the same candidates. A merge is false
when the candidate's true gain is zero or less. Units: those of the metric; gains positive when better.

The shipped rule is played by its own functions: `stats` gives its e-values and bars. Only the bookkeeping is written
again here, for arrays of campaigns; `tests/test_validation_simulate.py` holds it against `rules.decide`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from research.validation import stats
from research.validation.records import Rule

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

FLOOR_PAIRS = 6  # A/A pairs behind the noise floor that the shipped rule sees
GRID: Array = np.linspace(-6.0, 6.0, 2401)  # of atanh(u), where the log of the e-value is smooth


@dataclass(frozen=True)
class World:
    """The truth of a campaign. The defaults are the world that the protocol was designed in."""

    name: str = "mixed"
    null: float = 0.63  # share of candidates whose change does nothing
    harm: float = 0.30  # share that does harm, by |N(0, harm_sd)|; the rest are gains
    harm_sd: float = 0.004
    gain_low: float = 0.001
    gain_high: float = 0.004
    sigma_trial: float = 0.0015
    correlation: float = 0.0  # between the arms of a pair, beyond the level they share
    drift_sd: float = 0.0  # sd of a level that wanders from candidate to candidate, AR(1) with 0.9
    tail: float = math.inf  # degrees of freedom of the noise, scaled to the same sd

    def measured(self, sigma_trial: float, correlation: float, drift: float) -> Self:
        """The same world at this noise: effects keep their size against it. drift in sigma, as in a noise floor."""
        scale = sigma_trial / self.sigma_trial
        return replace(
            self, sigma_trial=sigma_trial, harm_sd=self.harm_sd * scale, gain_low=self.gain_low * scale,
            gain_high=self.gain_high * scale, correlation=min(max(correlation, -0.99), 0.99),
            drift_sd=max(self.drift_sd * scale, abs(drift) * sigma_trial / 2),
        )  # fmt: skip

    @property
    def sigma_pair(self) -> float:
        return self.sigma_trial * math.sqrt(2 * (1 - self.correlation))


WORLDS = (
    World(),
    World("barren", null=0.68, harm=0.32),
    World("drifting", drift_sd=0.001),
    World("heavy_tails", tail=3.0),
)


@dataclass(frozen=True)
class Tally:
    """Means over campaigns. fdp: mean share of merges that are false. Gains are sums over the merges of a campaign."""

    false_merges: float
    true_merges: float
    trials: float
    power: float
    power_last_quarter: float
    fdp: float
    share_with_merge: float
    real_gain: float
    claimed_gain: float
    shrunk_gain: float


@dataclass
class Draws:
    """What `campaigns` x `candidates` would measure. Scores are gains over the start of the campaign's level."""

    world: World
    gains: Array  # (campaigns, candidates)
    level: Array  # the same shape: what drift adds to every trial measured then
    random: np.random.Generator

    def noise(self, shape: tuple[int, ...], sd: float) -> Array:
        if math.isinf(self.world.tail):
            return sd * self.random.standard_normal(shape)
        scale = sd / math.sqrt(self.world.tail / (self.world.tail - 2))
        return scale * self.random.standard_t(self.world.tail, shape)

    def pairs(self, count: int) -> Array:
        """Differences of `count` fresh pairs of every candidate: drift is shared by both arms and cancels."""
        shape = (*self.gains.shape, count)
        return self.gains[..., None] + self.noise(shape, self.world.sigma_pair)


def draw(world: World, campaigns: int, candidates: int, seed: int) -> Draws:
    random = np.random.default_rng(seed)
    shape = (campaigns, candidates)
    kind = random.random(shape)
    harm = -np.abs(random.normal(0, world.harm_sd, shape))
    gain = random.uniform(world.gain_low, world.gain_high, shape)
    gains = np.where(kind < world.null, 0.0, np.where(kind < world.null + world.harm, harm, gain))
    return Draws(world, gains, _wander(random, shape, world.drift_sd), random)


def _wander(random: np.random.Generator, shape: tuple[int, int], sd: float) -> Array:
    level = np.zeros(shape)
    steps = random.normal(0, sd * math.sqrt(1 - 0.9**2), shape)
    level[:, 0] = random.normal(0, sd, shape[0])
    for at in range(1, shape[1]):
        level[:, at] = 0.9 * level[:, at - 1] + steps[:, at]
    return level


@dataclass
class Merges:
    """What a rule did: which candidates it merged, the trials each cost, what it claimed and what it shrank that to."""

    merged: Flags
    trials: Ints
    claimed: Array
    shrunk: Array


Bars = Callable[[Ints, Ints], Array]  # (t, discoveries) of every campaign -> log of the bar


def fixed_bar(bar: float) -> Bars:
    return lambda t, found: np.full(len(t), math.log(bar))


def campaign_bars(alpha: float, gammas: Array, minimum: float = 1.0) -> Bars:
    """e-LOND with these shares; never below `minimum`, the bar of a single experiment."""
    logs = np.log(gammas)

    def bars(t: Ints, found: Ints) -> Array:
        bar: Array = -(math.log(alpha) + logs[t - 1] + np.log(found + 1.0))
        return np.maximum(bar, math.log(minimum))

    return bars


def shipped_bars(rule: Rule, candidates: int) -> Bars:
    return campaign_bars(rule.alpha, np.array([stats.gamma(t) for t in range(1, candidates + 1)]))


def funnel(draws: Draws, rule: Rule, bars: Bars) -> Merges:
    """Screen, extend, confirm under a rule, one candidate after the other; `bars` sees t and the discoveries."""
    sigma = floors(draws, draws.world.sigma_pair)
    early = draws.pairs(rule.screen_pairs + rule.extend_pairs)
    passed, trials = screened(early, rule, sigma[:, None], rule.extend_sigma * sigma[:, None])
    return confirm(draws, draws.pairs(rule.looks[-1]), rule, bars, sigma, passed, trials)


def floors(draws: Draws, sigma_pair: float) -> Array:
    """The sigma of a pair that each campaign's noise floor says."""
    found: Array = sigma_pair * np.sqrt(draws.random.chisquare(FLOOR_PAIRS, len(draws.gains)) / FLOOR_PAIRS)
    return found


def confirm(
    draws: Draws, pairs: Array, rule: Rule, bars: Bars, sigma: Array, confirmed: Flags, trials: Ints
) -> Merges:  # fmt: skip
    """What becomes of the candidates that screening let through, and of what each measured before cost in trials."""
    campaigns, candidates = draws.gains.shape
    log_e, stop = _looks(pairs, rule, sigma)
    best = np.maximum.accumulate(log_e, axis=-1)
    reachable = np.take_along_axis(best, stop[..., None], axis=-1)[..., 0]
    merged = np.zeros((campaigns, candidates), dtype=bool)
    look = stop.copy()
    t, found = np.zeros(campaigns, np.int64), np.zeros(campaigns, np.int64)
    for at in range(candidates):
        brought = confirmed[:, at]
        t += brought
        bar = bars(np.maximum(t, 1), found)
        merged[:, at] = brought & (reachable[:, at] >= bar)
        first = np.argmax(log_e[:, at] >= bar[:, None], axis=-1)
        look[:, at] = np.where(merged[:, at], first, look[:, at])
        found += merged[:, at]
    count = np.array(rule.looks)[look]
    sums = np.cumsum(pairs, axis=-1)
    mean = np.take_along_axis(sums, count[..., None] - 1, axis=-1)[..., 0] / count
    unit = sigma[:, None] ** 2
    shrunk = mean * stats.mixture_shrinkage(mean, unit, unit / count, rule)
    return Merges(merged, trials + np.where(confirmed, 2 * count, 0), mean, shrunk)


def screened(early: Array, rule: Rule, sigma: Array, hurdle: Array) -> tuple[Flags, Ints]:
    """Which candidates reach confirmation, and the trials that this took."""
    first = early[..., : rule.screen_pairs].mean(axis=-1)
    every = early.mean(axis=-1)
    clear = first >= rule.clear_sigma * sigma
    extended = (first >= 0) & ~clear
    passed = clear | (extended & (every > 0) & (every >= hurdle))
    return passed, 2 * rule.screen_pairs + 2 * rule.extend_pairs * extended.astype(np.int64)


def _looks(pairs: Array, rule: Rule, sigma: Array) -> tuple[Array, Ints]:
    """log e-value at every look, and the index of the look at which measuring stops for another reason than a gain."""
    sums, squares = np.cumsum(pairs, axis=-1), np.cumsum(pairs**2, axis=-1)
    logs, stops = [], []
    for look in rule.looks:
        total = sums[..., look - 1]
        u = np.clip(total / np.sqrt(look * squares[..., look - 1]), -1 + 1e-12, 1 - 1e-12)
        place = np.arctanh(u)
        curve = _curve(look, rule.effects) + math.log(1 - rule.censored_share)
        log_e = np.interp(place, GRID, curve)
        stop = np.interp(-place, GRID, curve) >= math.log(rule.worse_bar)
        if look >= rule.futility_from:
            stop |= (total / look < rule.futility_sigma * sigma[:, None]) | (log_e < math.log(rule.futility_e))
        if look == rule.looks[-1]:
            stop = np.ones_like(stop)
        logs.append(log_e)
        stops.append(stop)
    return np.stack(logs, axis=-1), np.argmax(np.stack(stops, axis=-1), axis=-1)


@lru_cache(maxsize=256)
def _curve(look: int, effects: tuple[float, ...]) -> Array:
    """log of the e-value along GRID: a fiftieth of a second each, and every play needs the same ones."""
    return stats.log_e_curve(np.tanh(GRID), look, effects)


def keep_if_better(draws: Draws, seeds: int = 1) -> Merges:
    """The common loop: the best of `seeds` trials against the best score so far, as it was measured then."""
    campaigns, candidates = draws.gains.shape
    sd = draws.world.sigma_trial
    merged = np.zeros((campaigns, candidates), dtype=bool)
    claimed = np.zeros((campaigns, candidates))
    truth = np.zeros(campaigns)
    stored = draws.level[:, 0] + draws.noise((campaigns, seeds), sd).max(axis=-1)
    for at in range(candidates):
        score = truth + draws.gains[:, at] + draws.level[:, at] + draws.noise((campaigns, seeds), sd).max(axis=-1)
        better = score > stored
        merged[:, at], claimed[:, at] = better, score - stored
        truth = np.where(better, truth + draws.gains[:, at], truth)
        stored = np.where(better, score, stored)
    return Merges(merged, np.full((campaigns, candidates), seeds), claimed, claimed)


def fixed_against_cache(draws: Draws, seeds: int = 10, t_bar: float = 1.734) -> Merges:
    """`seeds` trials against the stored trials of the parent, Welch's t above the 5 % quantile (18 degrees)."""
    campaigns, candidates = draws.gains.shape
    sd = draws.world.sigma_trial
    merged = np.zeros((campaigns, candidates), dtype=bool)
    claimed = np.zeros((campaigns, candidates))
    truth = np.zeros(campaigns)
    parent = draws.level[:, :1] + draws.noise((campaigns, seeds), sd)
    for at in range(candidates):
        mine = (truth + draws.gains[:, at] + draws.level[:, at])[:, None] + draws.noise((campaigns, seeds), sd)
        gain = mine.mean(axis=-1) - parent.mean(axis=-1)
        error = np.sqrt((mine.var(axis=-1, ddof=1) + parent.var(axis=-1, ddof=1)) / seeds)
        better = gain / error > t_bar
        merged[:, at], claimed[:, at] = better, gain
        truth = np.where(better, truth + draws.gains[:, at], truth)
        parent = np.where(better[:, None], mine, parent)
    return Merges(merged, np.full((campaigns, candidates), seeds), claimed, claimed)


def ten_seeds(draws: Draws, pairs: int = 10, t_bar: float = 2.821) -> Merges:
    """Ten fresh pairs for every candidate, paired t above the 1 % quantile (9 degrees)."""
    data = draws.pairs(pairs)
    mean = data.mean(axis=-1)
    merged = mean / (data.std(axis=-1, ddof=1) / math.sqrt(pairs)) > t_bar
    return Merges(merged, np.full(draws.gains.shape, 2 * pairs), mean, mean)


def tally(draws: Draws, done: Merges) -> Tally:
    real = draws.gains > 0
    true, false = done.merged & real, done.merged & ~real
    last = slice(3 * draws.gains.shape[1] // 4, None)

    def per_campaign(values: Array | Flags | Ints) -> float:
        return float(values.sum(axis=1).mean())

    merges = done.merged.sum(axis=1)
    return Tally(
        false_merges=per_campaign(false),
        true_merges=per_campaign(true),
        trials=per_campaign(done.trials),
        power=_ratio(true.sum(), real.sum()),
        power_last_quarter=_ratio(true[:, last].sum(), real[:, last].sum()),
        fdp=float((false.sum(axis=1) / np.maximum(merges, 1)).mean()),
        share_with_merge=float((merges > 0).mean()),
        real_gain=per_campaign(np.where(done.merged, draws.gains, 0.0)),
        claimed_gain=per_campaign(np.where(done.merged, done.claimed, 0.0)),
        shrunk_gain=per_campaign(np.where(done.merged, done.shrunk, 0.0)),
    )


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


RECOMMENDED = "campaign"


def compare(world: World, rule: Rule, campaigns: int, candidates: int, seed: int) -> dict[str, Tally]:
    """Every rule on the same world. The recommended one is the rule as it ships, campaign bar included."""
    plays: dict[str, Callable[[Draws], Merges]] = {
        RECOMMENDED: lambda draws: funnel(draws, rule, shipped_bars(rule, candidates)),
        "campaign_alpha_0.2": lambda draws: funnel(draws, rule, shipped_bars(replace(rule, alpha=0.2), candidates)),
        "e_20": lambda draws: funnel(draws, rule, fixed_bar(20.0)),
        "ten_seeds": ten_seeds,
        "ten_seeds_cached_p05": fixed_against_cache,
        "keep_if_better": keep_if_better,
        "best_of_4": lambda draws: keep_if_better(draws, 4),
    }
    return {name: tally(draws := draw(world, campaigns, candidates, seed), play(draws)) for name, play in plays.items()}


def capped_crossings(rule: Rule, bar: float, streams: int, looks: Sequence[int], cap: float, seed: int) -> float:
    """The same for times of which those above `cap` sd are cut, under a rule that stakes a share on signs.

    What `reading.weigh` reads, for arrays of streams; `tests/test_validation_simulate.py` holds it against that.
    """
    times = np.random.default_rng(seed).standard_normal((streams, looks[-1], 2))
    reached = np.zeros(streams, dtype=bool)
    for look in looks:
        reached |= capped_e_values(np.minimum(times[:, :look], cap), cap, rule) >= bar
    return float(reached.mean())


def capped_e_values(times: Array, cap: float, rule: Rule) -> Array:
    """What is read of streams of log times (streams, pairs, [baseline, candidate]); one at the cap is cut."""
    gains = times[..., 0] - times[..., 1]
    share = rule.censored_share
    of_t = (1 - share) * stats.e_values(gains, rule.effects)
    wins, losses = (gains > 0).sum(axis=-1)[:, None], (gains < 0).sum(axis=-1)[:, None]
    bets = np.array(stats.BETS)
    of_signs = share * ((1 + bets) ** wins * (1 - bets) ** losses).mean(axis=-1)
    capped = (times >= cap).any(axis=(-2, -1))
    read: Array = np.where(capped, np.minimum(of_t, of_signs), of_t)
    return read


def null_crossings(effects: Sequence[float], bar: float, streams: int, looks: Sequence[int], seed: int) -> float:
    """The share of streams without any gain whose e-value reaches the bar at some look."""
    pairs = np.random.default_rng(seed).standard_normal((streams, looks[-1]))
    reached = np.zeros(streams, dtype=bool)
    for look in looks:
        reached |= stats.e_values(pairs[:, :look], effects) >= bar
    return float(reached.mean())
