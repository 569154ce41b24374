"""A rule of evidence in plain words, for pages and briefs."""

from __future__ import annotations

from research.validation.reading import count_words
from research.validation.records import Procedure, Rule, Scale


def rule_words(rule: Rule) -> list[str]:
    """One sentence a stage."""
    noise = f"Nothing is confirmed before {rule.noise_trials} A/A trials have told the noise."
    scale = ["Scores are times: compared by the log of their ratio."] * (rule.scale is Scale.LOG)
    if not rule.is_sequential:
        return [_read_once(rule), "No screening, no early look, nothing added afterwards.", *scale, noise]
    said = []
    if rule.screen_pairs:
        said.append(f"Screen: {count_words(rule.screen_pairs)}. It stops there if the candidate looks worse.")
        said.append(
            f"Extend: {count_words(rule.extend_pairs)} more, unless the screening gain is {rule.clear_sigma:g} sigma "
            f"or more; it goes on if the mean gain of all reaches {rule.extend_sigma:g} sigma of a pair."
        )
    said.append(
        f"Confirm: fresh pairs only, read at {_looks(rule)}. Improved at the e-value that the "
        f"campaign asks (e-LOND: at most {100 * rule.alpha:g} % of what it calls improved is false), worse at "
        f"{rule.worse_bar:g} against it. Screening counts for nothing here."
    )
    said.append(
        f"From {count_words(rule.futility_from)} on it stops early where the mean is below {rule.futility_sigma:g} "
        f"sigma or the e-value below {rule.futility_e:g}."
    )
    return [*said, *scale, noise]


def _read_once(rule: Rule) -> str:
    if rule.procedure is Procedure.TARGET:
        return (
            f"{rule.looks[0]} fresh runs of the candidate, read once. Improved where their mean is better than the "
            f"target {rule.target:g} with one-sided p < {rule.p_bar:g}, and better than the baseline's."
        )
    return (
        f"{count_words(rule.looks[0])} of fresh seeds, read once. Improved where a paired t-test has one-sided "
        f"p < {rule.p_bar:g}, worse where the opposite has."
    )


def _looks(rule: Rule) -> str:
    looks = [str(look) for look in rule.looks]
    return f"{', '.join(looks)} pairs" if len(looks) < 5 else f"{', '.join(looks[:3])} … {looks[-1]} pairs"
