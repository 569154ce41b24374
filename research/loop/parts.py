"""A gain taken apart over the curves of its trials: more steps in the budget, or a better model at equal steps."""

from __future__ import annotations

from research.models import Experiment, Series, Trial
from research.validation.records import Direction
from research.validation.split import Curve, CurvePair, Split, split_gain

LOSS = "loss"  # what a training program calls the curve that falls as it learns
PAIRS_READ = 12


def split_of(experiment: Experiment) -> Split | None:
    """Over the pairs that confirm, or that were asked for; None where both arms logged no loss. No evidence."""
    trials = {
        trial.pk: trial
        for trial in experiment.trials.filter(result__score__isnull=False, pair__lt=PAIRS_READ)
        if trial.stage in ("confirm", "closing")
    }
    rows = Series.objects.newest().filter(trial__in=trials, metric=LOSS)
    trial_of = dict(rows.values_list("pk", "trial"))
    arms: dict[tuple[str, int], dict[str, Curve]] = {}
    for pk, points in rows.points():
        trial = trials[trial_of[pk]]
        arms.setdefault((trial.stage, trial.pair), {})[trial.arm] = Curve(*points)
    pairs = [
        CurvePair(found[Trial.Arm.BASELINE], found[Trial.Arm.CANDIDATE]) for found in arms.values() if len(found) == 2
    ]
    return split_gain(pairs, Direction.LOWER)


def split_json(split: Split | None) -> dict[str, object] | None:
    """In the unit of the curve, positive is better; `error` is a standard error."""
    if split is None:
        return None
    named = {"total": split.total, "modelling": split.modelling, "throughput": split.throughput}
    parts = {name: {"mean": part.mean, "error": part.error} for name, part in named.items()}
    steps = {"baseline_steps": split.baseline_steps, "candidate_steps": split.candidate_steps}
    return {"curve": LOSS, "pairs": split.pairs, **parts, **steps}
