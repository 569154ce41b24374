"""What a running experiment waits for, in plain words."""

from __future__ import annotations

from research.models import Experiment
from research.validation.reading import count_words
from research.validation.records import Rule
from research.views.pairs import Pairs


def what_next(experiment: Experiment, pairs: Pairs) -> str:
    """Which pair of which stage a running experiment is at, and what must happen for a verdict."""
    stage = next((pair.stage for pair in pairs.rows if pair.state in ("running", "waiting")), pairs.furthest)
    planned = len(pairs.of(stage))
    done = f"{len(pairs.gains(stage))} of {count_words(planned)}"
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
            f"and takes {count_words(rule.extend_pairs)} more otherwise."
        )
    if stage == "extend":
        return f"It goes to confirmation if the mean gain of all reaches {rule.extend_sigma:g} sigma of a pair."
    if not rule.is_sequential:
        return f"All {count_words(planned)} are read at once; improved needs p < {rule.p_bar:g}."
    asked = "the e-value that the campaign asks" if bar is None else f"an e-value of {bar:.4g}"
    return (
        f"The evidence is read at {count_words(planned)}; improved needs {asked}. "
        f"Without a clear answer more pairs follow, up to {max(rule.looks[-1], planned)}."
    )
