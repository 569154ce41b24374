"""The arithmetic of evidence: e-values, anytime intervals, shrinkage, detectable gains and campaign bars.

Gains are positive when the candidate is better; directions are settled before numbers come here. Decisions
live in `rules`. numpy only: the density ratio behind the e-value is integrated here rather than taken from
scipy's noncentral t, whose tails lose precision, and whose import costs a process over 100 MB.

Sources (of the first two the abstracts were read; validity is checked by simulation in the tests):
    e-value      Perez-Ortiz, Lardy, de Heide, Grunwald, "E-statistics, group invariance and anytime-valid
                 testing", Annals of Statistics 52(4), 2024: the likelihood ratio of the maximal invariant,
                 here of the t statistic, gives an anytime-valid test.
    interval     The same e-process inverted, as in Wang, Ramdas, "Anytime-valid t-tests and confidence
                 sequences for Gaussian means with unknown variance", arXiv 2310.03722, which
                 mixes over a Gaussian prior where this takes the rule's discrete effects.
    e-LOND       Xu, Ramdas, "Online multiple testing with e-values", 2024: level alpha * gamma_t * (D + 1).
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from research.validation import tails
from research.validation.records import LARGEST_LOG, Procedure, Rule

Array = NDArray[np.float64]

# Differences closer together than this, relative to their size, are one number and rounding.
IDENTICAL = 1e-9
# Trapezoid nodes in units of the integrand's width. Its left tail is the long one (exponential for 2 pairs).
NODES: Array = np.arange(-28.0, 10.0, 0.35)
BETS = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the sign e-value: from cautious to all
LARGEST_MEAN = 1e6  # in sd: what is further out is as good as certain
GAMMA_POWER, GAMMA_SHIFT = 1.4, 2
GAMMA_TOTAL = 1.7267  # of (t + 2)^-1.4 over all t from 1, rounded up so that the shares sum to just under 1


def e_value(differences: ArrayLike, effects: Sequence[float]) -> float:
    """Evidence that the mean of the differences is above zero: see `e_values`."""
    return float(e_values(np.asarray(differences, dtype=float)[None, :], effects)[0])


def e_values(differences: ArrayLike, effects: Sequence[float]) -> Array:
    """E-values of many streams at once; differences (streams, n) -> (streams,).

    The Bayes factor of the one-sided t statistic: the mean over effects d of
    pdf_nct(t; n - 1, d sqrt(n)) / pdf_t(t; n - 1). It depends on the data through u = sum / sqrt(n * sum of
    squares) alone, so it does not change with the unit of the metric.

    Under a mean of zero the ratio is a martingale in the information that forgets the scale, hence
    P(it ever reaches b) <= 1 / b at any set of looks. A mean below zero only lowers t on every path, and a
    stop for futility (which may use the scale) only takes away chances, so the bound covers both.

    Fewer than two differences, or all of them the same number, say nothing: 1.
    """
    data = np.asarray(differences, dtype=float)
    count = data.shape[-1]
    if count < 2:
        return np.ones(data.shape[:-1])
    size = np.max(np.abs(data), axis=-1)
    scaled = data / np.where(size > 0, size, 1.0)[..., None]
    constant = np.ptp(scaled, axis=-1) <= IDENTICAL
    squares = np.where(constant, 1.0, np.sum(scaled**2, axis=-1))
    u = np.clip(np.sum(scaled, axis=-1) / np.sqrt(count * squares), -1.0, 1.0)
    return np.where(constant, 1.0, np.exp(_log_e(u, count, effects)))


def _log_e(u: ArrayLike, count: int, effects: Sequence[float]) -> Array:
    """log of the e-value at u = t / sqrt(t^2 + n - 1), for any shape of u; rises with u.

    With v = n - 1 and m = d sqrt(n), the density ratio is exp(-m^2 / 2) * I(m u) / I(0), where
    I(a) = integral over y > 0 of y^v exp(-y^2 / 2 + a y). Substituting y = exp(x) makes the integrand smooth
    and log-concave; the trapezoid rule around its peak agrees with scipy's noncentral t to 1e-7 or better.
    """
    shift = np.sqrt(count) * np.asarray(effects)
    ratio = _log_integral(np.multiply.outer(np.asarray(u, dtype=float), shift), count) - 0.5 * shift**2
    at_zero = 0.5 * (count - 2) * math.log(2.0) + math.lgamma(count / 2)
    highest = ratio.max(axis=-1)
    mean = np.mean(np.exp(ratio - highest[..., None]), axis=-1)
    log_e: Array = np.minimum(highest + np.log(mean) - at_zero, LARGEST_LOG)
    return log_e


def log_e_curve(u: Array, count: int, effects: Sequence[float]) -> Array:
    """log of the e-value of `count` pairs at each u = sum / sqrt(count * sum of squares): for tables."""
    return _log_e(u, count, effects)


def _log_integral(a: Array, count: int) -> Array:
    peak = 0.5 * (a + np.sqrt(a**2 + 4 * count))
    width = 1 / np.sqrt(peak**2 + count)
    x = np.log(peak)[..., None] + width[..., None] * NODES
    y = np.exp(x)
    exponent = count * x - 0.5 * y**2 + a[..., None] * y
    top = exponent.max(axis=-1)
    total = np.sum(np.exp(exponent - top[..., None]), axis=-1)
    log_integral: Array = top + np.log(total * width * (NODES[1] - NODES[0]))
    return log_integral


def anytime_interval(differences: ArrayLike, level: float, effects: Sequence[float]) -> tuple[float, float] | None:
    """The gains that the pairs do not rule out, at every look at once; None where they bound nothing yet.

    Inverts the two one-sided e-processes of `e_values`, for the candidate and against it: a gain m is ruled
    out when the e-value of (differences - m), or of its negative, reaches 1 / level. So each end is wrong at
    some look with probability at most level, both together at most 2 level, and the interval tells the same
    story as the verdict. It never gets much narrower than half the smallest effect: below that the e-process
    does not look.
    """
    data = np.asarray(differences, dtype=float)
    count = len(data)
    if count < 2:
        return None
    size = float(np.max(np.abs(data)))
    if np.ptp(data) <= IDENTICAL * size:
        return (0.0, 0.0) if size == 0 else None
    u = _lowest_u(count, tuple(effects), 1 / level)
    if u >= 1:
        return None
    t = u * math.sqrt((count - 1) / (1 - u**2))
    mean = float(data.mean())
    half = t * float(data.std(ddof=1)) / math.sqrt(count)
    return mean - half, mean + half


def sign_e_value(wins: int, losses: int) -> float:
    """Evidence of pairs of which only the order of the arms counts; ties are neither.

    A bettor stakes a share b of what he holds on the candidate's win in each pair, at even odds: (1 + b)^wins *
    (1 - b)^losses, the mean over BETS. Where a win is no likelier than a loss, whatever came before, every bet is fair
    or worse, so the wealth is a supermartingale and reaches x at any look with probability at most 1 / x.
    """
    if wins > 900:  # (1 + b)^wins leaves the doubles
        return math.exp(LARGEST_LOG) if losses == 0 else sign_e_value(900, losses)
    return math.fsum((1 + bet) ** wins * (1 - bet) ** losses for bet in BETS) / len(BETS)


def sign_interval(bounds: Sequence[tuple[float, float]], bar: float) -> tuple[float, float] | None:
    """The medians of the gain that the signs do not rule out at any look; None where an end is unknown.

    bounds: between which values each gain lies. A median m is too low when the sign e-value of the gains that are
    surely above it, against all others, reaches the bar: so each end is a gain of a certain rank.
    """
    count = len(bounds)
    rank = next((wins for wins in range(1, count + 1) if sign_e_value(wins, count - wins) >= bar), None)
    if rank is None:
        return None
    low = sorted((low for low, _ in bounds), reverse=True)[rank - 1]
    high = sorted(high for _, high in bounds)[rank - 1]
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def pairs_needed(
    differences: ArrayLike, sigma_pair: float, effects: Sequence[float], bar: float, most: int
) -> int | None:
    """How many pairs in all the e-value needs to reach the bar, should the mean stay what it is; None above `most`.

    A plan, not evidence. The sd is that of the pairs or the noise floor's, whichever is larger.
    """
    data = np.asarray(differences, dtype=float)
    mean, sd = float(data.mean()), max(sigma_pair, float(data.std()))
    if mean <= 0:
        return None
    u = mean / math.hypot(mean, sd)
    counts = range(max(len(data), 2), most + 1)
    return next((count for count in counts if _log_e(u, count, effects) >= math.log(bar)), None)


def shrink(differences: ArrayLike, sigma_pair: float, rule: Rule) -> float:
    """The gain to expect from these pairs: their mean times what `shrinkage` keeps of it."""
    return float(np.mean(np.asarray(differences, dtype=float))) * shrinkage(differences, sigma_pair, rule)


def shrinkage(differences: ArrayLike, sigma_pair: float, rule: Rule) -> float:
    """The share of the mean gain that is kept: its posterior mean under the rule's prior of real gains, over the mean.

    The mean's own error is from the sd of the pairs or the noise floor's sigma_pair, whichever is larger: an early stop
    picks runs whose own sd came out small by luck, and a candidate that made training less steady must not hide behind
    the floor. On a floor of zero (a deterministic benchmark) the pairs' own sd is the unit of the prior.
    """
    data = np.asarray(differences, dtype=float)
    sd = max(sigma_pair, float(data.std(ddof=1)) if len(data) > 1 else 0.0)
    if sd == 0:
        return 1.0
    with np.errstate(over="ignore"):  # a floor may be as small as a number can be
        mean = np.clip(data.mean() / sd, -LARGEST_MEAN, LARGEST_MEAN)
    return float(mixture_shrinkage(mean, ((sigma_pair or sd) / sd) ** 2, 1 / len(data), rule))


def mixture_shrinkage(mean: ArrayLike, unit: ArrayLike, error: ArrayLike, rule: Rule) -> Array:
    """`shrinkage` of means with these variances (`error`); `unit` is the variance of a pair. Shapes broadcast.

    The prior is two normals around zero (adaptive shrinkage, Stephens 2017): most real gains are small against the
    noise, some are large. One normal alone takes most of an unsteady gain of ten sigma for luck.
    """
    shares = np.array([1 - rule.large_share, rule.large_share])
    real = np.asarray(unit)[..., None] * np.array([rule.shrink_tau, rule.large_tau]) ** 2
    seen = np.maximum(real + np.asarray(error)[..., None], np.finfo(float).tiny)
    log_weight = np.log(shares) - 0.5 * (np.log(seen) + np.asarray(mean)[..., None] ** 2 / seen)
    weight = np.exp(log_weight - log_weight.max(axis=-1, keepdims=True))
    return np.asarray((weight * real / seen).sum(axis=-1) / weight.sum(axis=-1))


def minimum_detectable_effect(rule: Rule, power: float = 0.8) -> float:
    """The true gain, in sigma of a pair, that confirmation calls improved with this power. May be inf.

    In sigma of a trial, and over the target, for the rule that has one.
    """
    if rule.procedure is not Procedure.FUNNEL:
        count = rule.looks[0]
        t = tails.student_quantile(rule.p_bar, count - 1)
        return _detectable((count,), (t / math.sqrt(t**2 + count - 1),), (-1.0,), count, -math.inf, power)
    bar = rule.bar / (1 - rule.censored_share)
    wins = tuple(_lowest_u(look, rule.effects, bar) for look in rule.looks)
    hopeless = tuple(_lowest_u(look, rule.effects, rule.futility_e * bar / rule.bar) for look in rule.looks)
    return _detectable(rule.looks, wins, hopeless, rule.futility_from, rule.futility_sigma, power)


@lru_cache(maxsize=64)
def _detectable(
    looks: tuple[int, ...],
    wins: tuple[float, ...],
    hopeless: tuple[float, ...],
    futility_from: int,
    futility_sigma: float,
    power: float,
) -> float:
    """Bisection over the gain on 4,000 fixed normal streams (about 1 % of noise in the answer).

    wins, hopeless: of every look, the u at which it is improved, and below which it stops.
    """
    noise = np.random.default_rng(20_240_808).standard_normal((4000, looks[-1]))

    def reached(gain: float) -> float:
        data = noise + gain
        sums, squares = np.cumsum(data, axis=1), np.cumsum(data**2, axis=1)
        running = np.ones(len(data), dtype=bool)
        won = np.zeros(len(data), dtype=bool)
        for look, win, low in zip(looks, wins, hopeless, strict=True):
            u = sums[:, look - 1] / np.sqrt(look * squares[:, look - 1])
            won |= running & (u >= win)
            running &= ~won
            if look >= futility_from:
                running &= (sums[:, look - 1] / look >= futility_sigma) & (u >= low)
        return float(won.mean())

    low, high = 0.0, 50.0
    if reached(high) < power:
        return math.inf
    for _ in range(24):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if reached(middle) < power else (low, middle)
    return high


@lru_cache(maxsize=1024)
def _lowest_u(count: int, effects: tuple[float, ...], bar: float) -> float:
    """The u at which the e-value reaches the bar; 2, which no data reach, where no gains would do."""
    target = math.log(bar) if bar > 0 else -math.inf
    low, high = -1.0, 1.0
    if _log_e(high, count, effects) < target:
        return 2.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _log_e(middle, count, effects) < target else (low, middle)
    return high


def gamma(t: int) -> float:
    """The share of alpha for the t-th hypothesis (t from 1): (t + 2)^-1.4, normalised; the first gets an eighth.

    Chosen by simulation (`manage.py simulate`): of the shares tried, those that fall faster lose the gains that come
    late in a campaign of 2,000 candidates; those that fall more slowly ask the first hypotheses for an e-value that
    four pairs cannot reach.
    """
    return float((t + GAMMA_SHIFT) ** -GAMMA_POWER / GAMMA_TOTAL)


def elond_bar(alpha: float, gammas: Sequence[float] | None, t: int, discoveries: int) -> float:
    """The e-value that the t-th hypothesis (t from 1) of a campaign must reach, after so many discoveries.

    e-LOND: 1 / (alpha * gamma_t * (discoveries + 1)) keeps the false discovery rate at or below alpha under
    any dependence, as long as the gammas sum to at most 1. None takes `gamma`; a sequence that ended leaves
    no level: inf.
    """
    if not 0 < alpha < 1 or t < 1 or discoveries < 0:
        raise ValueError("alpha must lie in (0, 1), t start at 1 and discoveries not be negative")
    if gammas is None:
        share = gamma(t)
    elif min(gammas, default=0.0) < 0 or math.fsum(gammas) > 1 + 1e-9:
        raise ValueError("gammas must not be negative nor sum to more than 1")
    else:
        share = gammas[t - 1] if t <= len(gammas) else 0.0
    return 1 / (alpha * share * (discoveries + 1)) if share > 0 else math.inf
