"""The decision procedure: evidence and a rule in, the next step or a verdict out.

Nothing else makes a verdict. In this order:

    findings   a structural one: invalid, whatever the numbers say
    screen     fresh pairs; stop if the candidate looks worse
    extend     more pairs, unless the first ones were clear; go on if the mean gain of all reaches extend_sigma
    confirm    fresh pairs only, read at the looks alone; the pairs above are never counted again, which
               removes the winner's curse from the evidence

A stop before confirm is inconclusive, never `worse`. The newest complete look decides: earlier looks are not
replayed, so an experiment whose person asked for more pairs continues the same e-process.

A replicate is measured after a verdict: `settle` reads its pairs alone, once; `pool` reads them with those of the
original. Neither changes the original verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from research.validation.records import (
    Direction,
    Evidence,
    Finding,
    MorePairs,
    NoiseFloor,
    PairedScore,
    Pooled,
    Rule,
    Severity,
    Stage,
    Verdict,
    VerdictKind,
    WaitForNoise,
)

__all__ = [
    "Direction",
    "Evidence",
    "Finding",
    "MorePairs",
    "NoiseFloor",
    "PairedScore",
    "Pooled",
    "Rule",
    "Severity",
    "Stage",
    "Verdict",
    "VerdictKind",
    "WaitForNoise",
    "decide",
    "pairs_to_decide",
    "pool",
    "settle",
]

Decision = MorePairs | WaitForNoise | Verdict


def decide(evidence: Evidence, rule: Rule) -> Decision:
    """The one next step that the rule allows on this evidence."""
    if evidence.structural:
        return _invalid(evidence, rule)
    if not evidence.gains(rule.direction, Stage.CONFIRM) and (before := _before_confirm(evidence, rule)):
        return before
    if evidence.noise is None or evidence.noise.trials < rule.noise_trials:
        return _wait(evidence, rule)
    return _confirm(evidence, rule, evidence.noise)


def settle(evidence: Evidence, rule: Rule) -> WaitForNoise | Verdict:
    """The verdict on as many confirm pairs as there are; none are asked for. At least one is needed."""
    if evidence.structural:
        return _invalid(evidence, rule)
    if evidence.noise is None or evidence.noise.trials < rule.noise_trials:
        return _wait(evidence, rule)
    gains = evidence.gains(rule.direction, Stage.CONFIRM)
    reading = _read(gains, rule, evidence.noise)
    bar = rule.bar if evidence.bar is None else evidence.bar
    stop = f"{_count(len(gains))} were asked for"
    return _settled(reading, rule, bar) or _unsettled(reading, rule, evidence.noise, bar, stop)


def pool(parts: Sequence[Evidence], rule: Rule) -> Pooled | None:
    """All confirm pairs of an experiment and its replicates, as one e-process; None without pairs or where invalid.

    Whether more pairs were measured may depend on what the earlier ones said, for an e-process holds at every stopping
    time and may be continued from there: the pairs are fresh seeds of the same two commits.
    """
    from research.validation import stats

    pairs = [pair for part in parts for pair in part.pairs if pair.stage is Stage.CONFIRM]
    gains = [gain for part in parts for gain in part.gains(rule.direction, Stage.CONFIRM)]
    if not gains or any(part.structural for part in parts):
        return None
    effect, level = sum(gains) / len(gains), sum(pair.baseline for pair in pairs) / len(pairs)
    low, high = stats.anytime_interval(gains, rule.level, rule.effects) or (None, None)
    bars = [part.bar for part in parts if part.bar is not None]
    return Pooled(
        pairs=len(gains), effect=effect, relative=effect / level if level else 0.0, low=low, high=high,
        e_value=stats.e_value(gains, rule.effects), e_against=stats.e_value([-gain for gain in gains], rule.effects),
        bar=bars[0] if bars else rule.bar,
    )  # fmt: skip


def pairs_to_decide(parts: Sequence[Evidence], rule: Rule, most: int = 48) -> int | None:
    """How many more pairs would probably settle it, either way, if gains stay as they are; None above `most`."""
    from research.validation import stats

    pooled = pool(parts, rule)
    if pooled is None:
        return None
    gains = [gain for part in parts for gain in part.gains(rule.direction, Stage.CONFIRM)]
    sigma = max((part.noise.sigma_pair for part in parts if part.noise), default=0.0)
    if pooled.e_value >= pooled.bar or pooled.e_against >= rule.worse_bar:
        return 0
    bar, sign = (pooled.bar, 1) if pooled.effect > 0 else (rule.worse_bar, -1)
    needed = stats.pairs_needed([sign * gain for gain in gains], sigma, rule.effects, bar, most)
    return max(needed - len(gains), 1) if needed else None


def _before_confirm(evidence: Evidence, rule: Rule) -> Decision | None:
    """Screening and extension; None when the candidate may be confirmed."""
    screened = len(evidence.gains(rule.direction, Stage.SCREEN))
    extended = len(evidence.gains(rule.direction, Stage.EXTEND))
    if screened < rule.screen_pairs:
        return MorePairs(Stage.SCREEN, rule.screen_pairs, "not screened yet")
    if rule.screen_pairs == 0:
        return None
    if extended == 0:
        mean = _mean(evidence.gains(rule.direction, Stage.SCREEN))
        if mean < 0:
            reason = f"{_count(screened)} gave a gain of {mean:.4g}, below 0"
            return _stopped(evidence, rule, Stage.SCREEN, mean, reason)
        if evidence.noise is not None and mean >= rule.clear_sigma * evidence.noise.sigma_pair:
            return None
    if extended < rule.extend_pairs:
        return MorePairs(Stage.EXTEND, rule.extend_pairs, "screening did not show it worse")
    return _after_extension(evidence, rule)


def _after_extension(evidence: Evidence, rule: Rule) -> Decision | None:
    """Stop at a mean of zero or less whatever the noise; above it the noise floor sets the hurdle."""
    gains = evidence.gains(rule.direction, Stage.SCREEN, Stage.EXTEND)
    mean = _mean(gains)
    if mean <= 0:
        reason = f"{_count(len(gains))} gave a mean gain of {mean:.4g}, not above 0"
        return _stopped(evidence, rule, evidence.stage, mean, reason)
    if evidence.noise is None:
        return _wait(evidence, rule)
    hurdle = rule.extend_sigma * evidence.noise.sigma_pair
    if mean < hurdle:
        asked = f"{hurdle:.4g} ({rule.extend_sigma:g} sigma)"
        reason = f"{_count(len(gains))} gave a mean gain of {mean:.4g}, below {asked}"
        return _stopped(evidence, rule, evidence.stage, mean, reason)
    return None


@dataclass(frozen=True)
class _Reading:
    """What the confirm pairs say at one look."""

    pairs: int
    mean: float
    shrunk: float
    interval: tuple[float, float] | None
    e_value: float
    e_against: float


def _read(gains: tuple[float, ...], rule: Rule, noise: NoiseFloor) -> _Reading:
    # Imported here to keep numpy out of the web process until there is evidence to weigh.
    from research.validation import stats

    mean = _mean(gains)
    return _Reading(
        pairs=len(gains),
        mean=mean,
        shrunk=stats.shrink(gains, noise.sigma_pair, rule.shrink_tau),
        interval=stats.anytime_interval(gains, rule.level, rule.effects),
        e_value=stats.e_value(gains, rule.effects),
        e_against=stats.e_value([-gain for gain in gains], rule.effects),
    )


def _confirm(evidence: Evidence, rule: Rule, noise: NoiseFloor) -> MorePairs | Verdict:
    gains = evidence.gains(rule.direction, Stage.CONFIRM)
    count = len(gains)
    if not rule.is_look(count):
        look = rule.next_look(count)
        return MorePairs(Stage.CONFIRM, look, f"the next look is at {_count(look)}")
    reading = _read(gains, rule, noise)
    bar = rule.bar if evidence.bar is None else evidence.bar
    if settled := _settled(reading, rule, bar):
        return settled
    stop = _stop_reason(reading, rule, noise, evidence.wanted)
    if stop is None:
        reason = f"{_weighed(reading)} has e-value {reading.e_value:.4g}, below the bar of {bar:.4g}"
        return MorePairs(Stage.CONFIRM, rule.next_look(count), reason)
    return _unsettled(reading, rule, noise, bar, stop)


def _settled(reading: _Reading, rule: Rule, bar: float) -> Verdict | None:
    """The verdict that one of the two e-values has reached."""
    if reading.e_value >= bar:
        reason = f"{_weighed(reading)} has e-value {reading.e_value:.4g}, at or above the bar of {bar:.4g}"
        return _confirmed(VerdictKind.IMPROVED, reading, rule, bar, reason)
    if reading.e_against >= rule.worse_bar:
        against = f"has e-value {reading.e_against:.4g} against it, at or above {rule.worse_bar:.4g}"
        return _confirmed(VerdictKind.WORSE, reading, rule, bar, f"{_weighed(reading)} {against}")
    return None


def _unsettled(reading: _Reading, rule: Rule, noise: NoiseFloor, bar: float, stop: str) -> Verdict:
    """The verdict where measuring stops before the question is settled."""
    detectable = noise.minimum_detectable_effect(rule)
    if reading.interval and max(map(abs, reading.interval)) <= detectable:
        within = f"its interval lies within {detectable:.4g}, the smallest gain this rule can confirm"
        return _confirmed(VerdictKind.NO_DIFFERENCE, reading, rule, bar, f"{_weighed(reading)}: {within}")
    reason = f"{_weighed(reading)} has e-value {reading.e_value:.4g}, below the bar of {bar:.4g}: {stop}"
    return _confirmed(VerdictKind.INCONCLUSIVE, reading, rule, bar, reason)


def _weighed(reading: _Reading) -> str:
    return f"a mean gain of {reading.mean:.4g} over {_count(reading.pairs)}"


def _stop_reason(reading: _Reading, rule: Rule, noise: NoiseFloor, wanted: int) -> str | None:
    """Why no further pairs are measured; None to go on. A person's wish for more pairs comes first."""
    if reading.pairs < wanted:
        return None
    if reading.pairs >= rule.looks[-1]:
        return f"{_count(reading.pairs)} were the last look"
    if reading.pairs < rule.futility_from:
        return None
    hurdle = rule.futility_sigma * noise.sigma_pair
    if reading.mean < hurdle:
        return f"stopped early, the mean is below {hurdle:.4g} ({rule.futility_sigma:g} sigma)"
    if reading.e_value < rule.futility_e:
        return f"stopped early, the e-value is below {rule.futility_e:g}"
    return None


def _confirmed(kind: VerdictKind, reading: _Reading, rule: Rule, bar: float, reason: str) -> Verdict:
    low, high = reading.interval or (None, None)
    passed = kind is VerdictKind.IMPROVED
    return Verdict(
        kind=kind,
        stage=Stage.CONFIRM,
        effect=reading.mean,
        shrunk=reading.shrunk,
        low=low,
        high=high,
        e_value=reading.e_value,
        e_against=reading.e_against,
        bar=bar,
        pairs=reading.pairs,
        near_miss=not passed and reading.shrunk > 0 and reading.e_value >= rule.near_miss_e,
        reason=reason,
    )


def _stopped(evidence: Evidence, rule: Rule, stage: Stage, effect: float, reason: str) -> Verdict:
    return _without_confirmation(VerdictKind.INCONCLUSIVE, evidence, rule, stage, effect, reason)


def _invalid(evidence: Evidence, rule: Rule) -> Verdict:
    gains = evidence.gains(rule.direction, evidence.stage)
    reason = "; ".join(finding.message for finding in evidence.structural)
    effect = _mean(gains) if gains else None
    return _without_confirmation(VerdictKind.INVALID, evidence, rule, evidence.stage, effect, reason)


def _without_confirmation(
    kind: VerdictKind, evidence: Evidence, rule: Rule, stage: Stage, effect: float | None, reason: str
) -> Verdict:
    return Verdict(
        kind=kind,
        stage=stage,
        effect=effect,
        shrunk=None,
        low=None,
        high=None,
        e_value=1.0,
        e_against=1.0,
        bar=rule.bar if evidence.bar is None else evidence.bar,
        pairs=len(evidence.gains(rule.direction, Stage.CONFIRM)),
        near_miss=False,
        reason=reason,
    )


def _wait(evidence: Evidence, rule: Rule) -> WaitForNoise:
    have = evidence.noise.trials if evidence.noise else 0
    return WaitForNoise(f"the noise floor needs {rule.noise_trials} A/A trials and has {have}")


def _mean(gains: tuple[float, ...]) -> float:
    return sum(gains) / len(gains)


def _count(pairs: int) -> str:
    return f"{pairs} pair" if pairs == 1 else f"{pairs} pairs"
