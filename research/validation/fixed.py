"""The two procedures that read once: so many fresh pairs, or so many runs of the candidate against a target.

No early look: nothing is read before the number that the rule names is there, and nothing is added afterwards, so a
p-value means what it says. Each has only the errors of its own experiment; a campaign of many expects p_bar false gains
for every candidate that does nothing.

Runs at a cap: p is the larger of the t-test's, capped runs counted at the cap, and the sign test's.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from research.validation import tails
from research.validation.outcomes import MorePairs, Verdict
from research.validation.reading import Reading, concluded, count_words, read
from research.validation.records import Evidence, NoiseFloor, Procedure, Rule, Stage, VerdictKind

IDENTICAL = 1e-9  # spread in relation to size below which numbers are one number and rounding


def decide_fixed(evidence: Evidence, rule: Rule, noise: NoiseFloor) -> MorePairs | Verdict:
    wanted = rule.looks[0]
    if len(evidence.of(Stage.CONFIRM)) < wanted:
        return MorePairs(Stage.CONFIRM, wanted, f"{count_words(wanted)} are read at once, none before")
    return settle_fixed(evidence, rule, noise)


def settle_fixed(evidence: Evidence, rule: Rule, noise: NoiseFloor) -> Verdict:
    """The verdict on the confirm pairs that there are, at least one. `noise` is on the rule's scale."""
    reading = read(evidence, rule, noise)
    reading = replace(reading, weight=replace(reading.weight, interval=_interval(reading, rule)))
    if rule.procedure is Procedure.TARGET:
        return _against_target(evidence, rule, reading)
    return _against_baseline(rule, noise, reading)


def _against_baseline(rule: Rule, noise: NoiseFloor, reading: Reading) -> Verdict:
    p, against = p_value(reading), p_value(reading, -1)
    said = (
        f"a {reading.words} gain of {rule.words(reading.weight.gain)} over {count_words(reading.pairs)} has p = {p:.3g}"
    )
    if p < rule.p_bar:
        return _passed(VerdictKind.IMPROVED, reading, rule, f"{said}, below {rule.p_bar:g}", p)
    if against < rule.p_bar:
        lost = f"{said}, and p = {against:.3g} for a loss, below {rule.p_bar:g}"
        return _passed(VerdictKind.WORSE, reading, rule, lost, p)
    from research.validation import stats

    detectable = stats.minimum_detectable_effect(rule) * noise.sigma_pair
    interval = reading.weight.interval
    if interval and max(map(abs, interval)) <= detectable:
        within = f"its interval lies within {rule.words(detectable)}, the smallest gain this rule can confirm"
        return _passed(VerdictKind.NO_DIFFERENCE, reading, rule, f"{said}: {within}", p)
    return _passed(VerdictKind.INCONCLUSIVE, reading, rule, f"{said}, not below {rule.p_bar:g}", p)


def _against_target(evidence: Evidence, rule: Rule, reading: Reading) -> Verdict:
    """Below the target with p < p_bar over the candidate's runs alone, and better than the baseline on the whole."""
    assert rule.target is not None
    pairs = evidence.of(Stage.CONFIRM)
    place = rule.scale.place
    margins = [rule.direction.gain(place(rule.target), place(pair.candidate)) for pair in pairs]
    p = mean_above_zero(margins)
    if any(pair.candidate_censored for pair in pairs):
        wins = sum(margin > 0 and not pair.candidate_censored for margin, pair in zip(margins, pairs, strict=True))
        p = max(p, tails.sign_tail(wins, len(margins) - wins))
    mean = rule.mean_score([pair.candidate for pair in pairs])
    said = f"{len(margins)} runs of the candidate have mean {mean:.6g} against the target {rule.target:g}, p = {p:.3g}"
    if p >= rule.p_bar:
        return _passed(VerdictKind.INCONCLUSIVE, reading, rule, f"{said}, not below {rule.p_bar:g}", p)
    if reading.weight.gain <= 0:
        lost = f"{said}; but it is no better than its baseline, whose gain is {rule.words(-reading.weight.gain)}"
        return _passed(VerdictKind.INCONCLUSIVE, reading, rule, lost, p)
    return _passed(VerdictKind.IMPROVED, reading, rule, f"{said}, below {rule.p_bar:g}", p)


def _passed(kind: VerdictKind, reading: Reading, rule: Rule, reason: str, p: float) -> Verdict:
    return concluded(kind, reading, rule, rule.bar, reason, p)


def p_value(reading: Reading, side: int = 1) -> float:
    """One-sided p of the paired t-test; of the sign test where that is larger and a run hit its cap."""
    weight = reading.weight
    p = mean_above_zero([side * gain for gain in weight.gains])
    if weight.signs is None:
        return p
    return max(p, tails.sign_tail(weight.signs.count(side), weight.signs.count(-side)))


def mean_above_zero(gains: Sequence[float]) -> float:
    """One-sided p that the mean is above zero. Numbers that never vary, or fewer than two, say nothing: 1."""
    spread = _spread(gains)
    if spread is None:
        return 1.0
    count = len(gains)
    return tails.student_tail(math.fsum(gains) / count / (spread / math.sqrt(count)), count - 1)


def _interval(reading: Reading, rule: Rule) -> tuple[float, float] | None:
    """The t interval whose ends each are wrong with probability p_bar: it excludes zero exactly where p < p_bar."""
    gains = reading.weight.gains
    spread = _spread(gains)
    if spread is None or reading.weight.signs is not None:
        return None
    mean, count = math.fsum(gains) / len(gains), len(gains)
    half = tails.student_quantile(rule.p_bar, count - 1) * spread / math.sqrt(count)
    return mean - half, mean + half


def _spread(gains: Sequence[float]) -> float | None:
    """The sd of the gains; None where they say nothing about it."""
    if len(gains) < 2 or max(gains) - min(gains) <= IDENTICAL * max(map(abs, gains)):
        return None
    mean = math.fsum(gains) / len(gains)
    return math.sqrt(math.fsum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1))
