"""The decision procedure: evidence and a rule in, the next step or a verdict out.

Nothing else makes a verdict. In this order:

    findings   a structural one: invalid, whatever the numbers say
    screen     fresh pairs; stop if the candidate looks worse
    extend     more pairs, unless the first ones were clear; go on if the mean gain of all reaches extend_sigma
    confirm    fresh pairs only, read at the looks alone; the pairs above are never counted again, which
               removes the winner's curse from the evidence

That is the funnel. The procedures that read once go from findings straight to `fixed`.

A stop before confirm is inconclusive, never `worse`. The newest complete look decides: earlier looks are not
replayed, so an experiment whose person asked for more pairs continues the same e-process.

A replicate is measured after a verdict: `settle` reads its pairs alone, once; `pool` reads them with those of the
original. Neither changes the original verdict.
"""

from collections.abc import Sequence

from research.validation.fixed import decide_fixed, settle_fixed
from research.validation.outcomes import MorePairs, Pooled, Verdict, WaitForNoise
from research.validation.reading import Reading, concluded, count_words, read, weigh
from research.validation.records import (
    Direction,
    Evidence,
    Finding,
    NoiseFloor,
    PairedScore,
    Procedure,
    Rule,
    Severity,
    Stage,
    VerdictKind,
)

__all__ = [
    "Direction",
    "Evidence",
    "Finding",
    "MorePairs",
    "NoiseFloor",
    "PairedScore",
    "Pooled",
    "Procedure",
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
    "stop",
]

Decision = MorePairs | WaitForNoise | Verdict


def decide(evidence: Evidence, rule: Rule) -> Decision:
    """The one next step that the rule allows on this evidence."""
    if evidence.structural:
        return _invalid(evidence, rule)
    if not evidence.of(Stage.CONFIRM) and (before := _before_confirm(evidence, rule)):
        return before
    noise = _noise(evidence, rule)
    if isinstance(noise, WaitForNoise):
        return noise
    if rule.procedure is not Procedure.FUNNEL:
        return decide_fixed(evidence, rule, noise)
    return _confirm(evidence, rule, noise)


def settle(evidence: Evidence, rule: Rule) -> WaitForNoise | Verdict:
    """The verdict on as many confirm pairs as there are; none are asked for. At least one is needed."""
    if evidence.structural:
        return _invalid(evidence, rule)
    noise = _noise(evidence, rule)
    if isinstance(noise, WaitForNoise):
        return noise
    if rule.procedure is not Procedure.FUNNEL:
        return settle_fixed(evidence, rule, noise)
    reading = read(evidence, rule, noise)
    bar = rule.bar if evidence.bar is None else evidence.bar
    stop = f"{count_words(reading.pairs)} were asked for"
    return _settled(reading, rule, bar) or _unsettled(reading, rule, noise, bar, stop)


def stop(evidence: Evidence, rule: Rule, why: str) -> Verdict:
    """The verdict where no more pairs are measured although the rule asks for some: never `improved` by a stop.

    What the confirm pairs settle at a look stays settled: `decide` has said so before. A rule that reads once has
    nothing to read before all its pairs are there.
    """
    if evidence.structural:
        return _invalid(evidence, rule)
    noise, confirmed = _noise(evidence, rule), evidence.of(Stage.CONFIRM)
    if rule.procedure is Procedure.FUNNEL and confirmed and not isinstance(noise, WaitForNoise):
        bar = rule.bar if evidence.bar is None else evidence.bar
        return _unsettled(read(evidence, rule, noise), rule, noise, bar, why)
    if not evidence.pairs:
        return _without_confirmation(VerdictKind.INCONCLUSIVE, evidence, rule, evidence.stage, None, why)
    stages = (Stage.CONFIRM,) if confirmed else (Stage.SCREEN, Stage.EXTEND)
    mean = _mean(evidence.gains(rule, *stages))
    effect = rule.in_units(mean, evidence.level(rule, *stages))
    reason = f"{count_words(len(evidence.gains(rule, *stages)))} gave a mean gain of {rule.words(mean)}: {why}"
    return _without_confirmation(VerdictKind.INCONCLUSIVE, evidence, rule, evidence.stage, effect, reason)


def pool(parts: Sequence[Evidence], rule: Rule) -> Pooled | None:
    """All confirm pairs of an experiment and its replicates, as one e-process; None without pairs or where invalid.

    Whether more pairs were measured may depend on what the earlier ones said, for an e-process holds at every stopping
    time and may be continued from there: the pairs are fresh seeds of the same two commits.
    """
    pairs = [pair for part in parts for pair in part.of(Stage.CONFIRM)]
    if not pairs or any(part.structural for part in parts):
        return None
    weight, level = weigh(pairs, rule), rule.mean_score([pair.baseline for pair in pairs])
    effect = rule.in_units(weight.gain, level)
    low, high = (rule.in_units(end, level) for end in weight.interval) if weight.interval else (None, None)
    bars = [part.bar for part in parts if part.bar is not None]
    return Pooled(
        pairs=len(pairs), effect=effect, relative=effect / level if level else 0.0, low=low, high=high,
        e_value=weight.e_value, e_against=weight.e_against, bar=bars[0] if bars else rule.bar,
    )  # fmt: skip


def pairs_to_decide(parts: Sequence[Evidence], rule: Rule, most: int = 48) -> int | None:
    """How many more pairs would probably settle it, either way, if gains stay as they are; None above `most`."""
    from research.validation import stats

    pooled = pool(parts, rule)
    if pooled is None:
        return None
    if pooled.e_value >= pooled.bar or pooled.e_against >= rule.worse_bar:
        return 0
    gains = [gain for part in parts for gain in part.gains(rule, Stage.CONFIRM)]
    floors = [part.noise.on_scale(rule, part.level(rule, Stage.CONFIRM)) for part in parts if part.noise]
    sigma = max((floor.sigma_pair for floor in floors), default=0.0)
    bar, sign = (pooled.bar, 1) if pooled.effect > 0 else (rule.worse_bar, -1)
    staked = bar / (1 - rule.censored_share)
    needed = stats.pairs_needed([sign * gain for gain in gains], sigma, rule.effects, staked, most)
    return max(needed - len(gains), 1) if needed else None


def _before_confirm(evidence: Evidence, rule: Rule) -> Decision | None:
    """Screening and extension; None when the candidate may be confirmed."""
    screened, extended = len(evidence.of(Stage.SCREEN)), len(evidence.of(Stage.EXTEND))
    if screened < rule.screen_pairs:
        return MorePairs(Stage.SCREEN, rule.screen_pairs, "not screened yet")
    if rule.screen_pairs == 0:
        return None
    if extended == 0:
        mean = _mean(evidence.gains(rule, Stage.SCREEN))
        if mean < 0:
            reason = f"{count_words(screened)} gave a gain of {rule.words(mean)}, below 0"
            return _stopped(evidence, rule, Stage.SCREEN, mean, reason)
        if (sigma := _sigma(evidence, rule)) is not None and mean >= rule.clear_sigma * sigma:
            return None
    if extended < rule.extend_pairs:
        return MorePairs(Stage.EXTEND, rule.extend_pairs, "screening did not show it worse")
    return _after_extension(evidence, rule)


def _after_extension(evidence: Evidence, rule: Rule) -> Decision | None:
    """Stop at a mean of zero or less whatever the noise; above it the noise floor sets the hurdle."""
    gains = evidence.gains(rule, Stage.SCREEN, Stage.EXTEND)
    mean = _mean(gains)
    if mean <= 0:
        reason = f"{count_words(len(gains))} gave a mean gain of {rule.words(mean)}, not above 0"
        return _stopped(evidence, rule, evidence.stage, mean, reason)
    sigma = _sigma(evidence, rule)
    if sigma is None:
        return _wait(evidence, rule)
    hurdle, why = _hurdle(evidence, rule, sigma)
    if mean < hurdle:
        asked = f"{rule.words(hurdle)} ({why})"
        reason = f"{count_words(len(gains))} gave a mean gain of {rule.words(mean)}, below {asked}"
        return _stopped(evidence, rule, evidence.stage, mean, reason)
    return None


def _noise(evidence: Evidence, rule: Rule) -> NoiseFloor | WaitForNoise:
    """The floor on the rule's scale; a wait where there are too few A/A trials to confirm anything."""
    if evidence.noise is None or evidence.noise.trials < rule.noise_trials:
        return _wait(evidence, rule)
    return evidence.noise.on_scale(rule, evidence.level(rule, Stage.CONFIRM)) if evidence.pairs else evidence.noise


def _sigma(evidence: Evidence, rule: Rule) -> float | None:
    """Sigma of a screening pair on the rule's scale, once there is one; None without a floor of its preset."""
    floor = evidence.screening.noise if evidence.screening else evidence.noise
    return floor.on_scale(rule, evidence.level(rule, Stage.SCREEN, Stage.EXTEND)).sigma_pair if floor else None


def _hurdle(evidence: Evidence, rule: Rule, sigma: float) -> tuple[float, str]:
    """What the mean screening gain must reach, and in words why.

    So many sigma of the noise it was measured in. Where another preset screens and is shown to foretell the project's
    own, the gain from which on it foretells one worth confirming, within `hurdle_range`.
    """
    relation = evidence.screening.relation if evidence.screening else None
    if relation is None or not relation.is_shown or relation.least is None:
        return rule.extend_sigma * sigma, f"{rule.extend_sigma:g} sigma"
    low, high = (share * sigma for share in rule.hurdle_range)
    return min(max(relation.least, low), high), f"as {relation.techniques} techniques measured at both presets tell"


def _confirm(evidence: Evidence, rule: Rule, noise: NoiseFloor) -> MorePairs | Verdict:
    count = len(evidence.of(Stage.CONFIRM))
    if not rule.is_look(count):
        look = rule.next_look(count)
        return MorePairs(Stage.CONFIRM, look, f"the next look is at {count_words(look)}")
    reading = read(evidence, rule, noise)
    bar = rule.bar if evidence.bar is None else evidence.bar
    if settled := _settled(reading, rule, bar):
        return settled
    stop = _stop_reason(reading, rule, noise, evidence.wanted)
    if stop is None:
        reason = f"{_weighed(reading, rule)} has e-value {reading.weight.e_value:.4g}, below the bar of {bar:.4g}"
        return MorePairs(Stage.CONFIRM, rule.next_look(count), reason)
    return _unsettled(reading, rule, noise, bar, stop)


def _settled(reading: Reading, rule: Rule, bar: float) -> Verdict | None:
    """The verdict that one of the two e-values has reached."""
    if reading.weight.e_value >= bar:
        reason = f"{_weighed(reading, rule)} has e-value {reading.weight.e_value:.4g}, at or above the bar of {bar:.4g}"
        return concluded(VerdictKind.IMPROVED, reading, rule, bar, reason)
    if reading.weight.e_against >= rule.worse_bar:
        against = f"has e-value {reading.weight.e_against:.4g} against it, at or above {rule.worse_bar:.4g}"
        return concluded(VerdictKind.WORSE, reading, rule, bar, f"{_weighed(reading, rule)} {against}")
    return None


def _unsettled(reading: Reading, rule: Rule, noise: NoiseFloor, bar: float, stop: str) -> Verdict:
    """The verdict where measuring stops before the question is settled."""
    from research.validation import stats

    detectable = stats.minimum_detectable_effect(rule) * noise.sigma_pair
    interval = reading.weight.interval
    if interval and max(map(abs, interval)) <= detectable:
        within = f"its interval lies within {rule.words(detectable)}, the smallest gain this rule can confirm"
        return concluded(VerdictKind.NO_DIFFERENCE, reading, rule, bar, f"{_weighed(reading, rule)}: {within}")
    reason = f"{_weighed(reading, rule)} has e-value {reading.weight.e_value:.4g}, below the bar of {bar:.4g}: {stop}"
    return concluded(VerdictKind.INCONCLUSIVE, reading, rule, bar, reason)


def _weighed(reading: Reading, rule: Rule) -> str:
    return f"a {reading.words} gain of {rule.words(reading.weight.gain)} over {count_words(reading.pairs)}"


def _stop_reason(reading: Reading, rule: Rule, noise: NoiseFloor, wanted: int) -> str | None:
    """Why no further pairs are measured; None to go on. A person's wish for more pairs comes first."""
    if reading.pairs < wanted:
        return None
    if reading.pairs >= rule.looks[-1]:
        return f"{count_words(reading.pairs)} were the last look"
    if reading.pairs < rule.futility_from:
        return None
    hurdle = rule.futility_sigma * noise.sigma_pair
    if reading.weight.gain < hurdle:
        return f"stopped early, the {reading.words} is below {rule.words(hurdle)} ({rule.futility_sigma:g} sigma)"
    if reading.weight.e_value < rule.futility_e:
        return f"stopped early, the e-value is below {rule.futility_e:g}"
    return None


def _stopped(evidence: Evidence, rule: Rule, stage: Stage, effect: float, reason: str) -> Verdict:
    in_units = rule.in_units(effect, evidence.level(rule, Stage.SCREEN, Stage.EXTEND))
    return _without_confirmation(VerdictKind.INCONCLUSIVE, evidence, rule, stage, in_units, reason)


def _invalid(evidence: Evidence, rule: Rule) -> Verdict:
    gains = evidence.gains(rule, evidence.stage)
    level = evidence.level(rule, evidence.stage) if gains else 0.0
    reason = "; ".join(dict.fromkeys(finding.message for finding in evidence.structural))  # of several trials, once
    effect = rule.in_units(_mean(gains), level) if gains else None
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
        pairs=len(evidence.of(Stage.CONFIRM)),
        near_miss=False,
        reason=reason,
    )


def _wait(evidence: Evidence, rule: Rule) -> WaitForNoise:
    have = evidence.noise.trials if evidence.noise else 0
    if have >= rule.noise_trials and evidence.screening:
        return WaitForNoise(
            f"the noise floor of the preset that screens, {evidence.screening.preset}, is not there yet"
        )
    return WaitForNoise(f"the noise floor needs {rule.noise_trials} A/A trials and has {have}")


def _mean(gains: tuple[float, ...]) -> float:
    return sum(gains) / len(gains)
