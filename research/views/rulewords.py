"""A rule of evidence in plain words: what it does, and what a running experiment waits for."""

from __future__ import annotations

from research.models import Experiment
from research.validation.records import Procedure, Rule, Scale
from research.views.pairs import Pairs


def rule_words(rule: Rule) -> list[str]:
    """One sentence a stage."""
    noise = f"Nothing is confirmed before {rule.noise_trials} A/A trials have told the noise."
    scale = ["Scores are times: compared by the log of their ratio."] * (rule.scale is Scale.LOG)
    if not rule.is_sequential:
        return [_read_once(rule), "No screening, no early look, nothing added afterwards.", *scale, noise]
    said = []
    if rule.screen_pairs:
        said.append(f"Screen: {_count(rule.screen_pairs)}. It stops there if the candidate looks worse.")
        said.append(
            f"Extend: {_count(rule.extend_pairs)} more, unless the screening gain is {rule.clear_sigma:g} sigma or "
            f"more; it goes on if the mean gain of all reaches {rule.extend_sigma:g} sigma of a pair."
        )
    said.append(
        f"Confirm: fresh pairs only, read at {_looks(rule)}. Improved at the e-value that the "
        f"campaign asks (e-LOND: at most {100 * rule.alpha:g} % of what it calls improved is false), worse at "
        f"{rule.worse_bar:g} against it. Screening counts for nothing here."
    )
    said.append(
        f"From {_count(rule.futility_from)} on it stops early where the mean is below {rule.futility_sigma:g} sigma "
        f"or the e-value below {rule.futility_e:g}."
    )
    return [*said, *scale, noise]


def _read_once(rule: Rule) -> str:
    if rule.procedure is Procedure.TARGET:
        return (
            f"{rule.looks[0]} fresh runs of the candidate, read once. Improved where their mean is better than the "
            f"target {rule.target:g} with one-sided p < {rule.p_bar:g}, and better than the baseline's."
        )
    return (
        f"{_count(rule.looks[0])} of fresh seeds, read once. Improved where a paired t-test has one-sided "
        f"p < {rule.p_bar:g}, worse where the opposite has."
    )


def what_next(experiment: Experiment, pairs: Pairs) -> str:
    """Which pair of which stage a running experiment is at, and what must happen for a verdict."""
    stage = next((pair.stage for pair in pairs.rows if pair.state in ("running", "waiting")), pairs.furthest)
    planned = len(pairs.of(stage))
    done = f"{len(pairs.gains(stage))} of {_count(planned)}"
    other = {
        Experiment.Purpose.NOISE: f"{done} of the start against itself; their spread is the noise floor",
        Experiment.Purpose.CLOSING: f"{done} of the champion against the start, on fresh seeds",
        Experiment.Purpose.REPLICATE: f"{done} more; they are pooled with the experiment they repeat",
    }
    if experiment.label:  # measured beside the search: no verdict
        return f"{done}: {experiment.label}"
    if said := other.get(Experiment.Purpose(experiment.purpose)):
        return said
    return f"{stage}: {done}. {_after(stage, planned, Rule.from_json(experiment.rule), experiment.bar)}"


def _after(stage: str, planned: int, rule: Rule, bar: float | None) -> str:
    if stage == "screen":
        return (
            "It ends if the candidate looks worse, goes to confirmation if the gain is clear, "
            f"and takes {_count(rule.extend_pairs)} more otherwise."
        )
    if stage == "extend":
        return f"It goes to confirmation if the mean gain of all reaches {rule.extend_sigma:g} sigma of a pair."
    if not rule.is_sequential:
        return f"All {_count(planned)} are read at once; improved needs p < {rule.p_bar:g}."
    asked = "the e-value that the campaign asks" if bar is None else f"an e-value of {bar:.4g}"
    return (
        f"The evidence is read at {_count(planned)}; improved needs {asked}. "
        f"Without a clear answer more pairs follow, up to {max(rule.looks[-1], planned)}."
    )


def _looks(rule: Rule) -> str:
    looks = [str(look) for look in rule.looks]
    return f"{', '.join(looks)} pairs" if len(looks) < 5 else f"{', '.join(looks[:3])} … {looks[-1]} pairs"


def _count(pairs: int) -> str:
    return "1 pair" if pairs == 1 else f"{pairs} pairs"
