"""Of a record: what was measured beside verdicts, and learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from research.loop.parts import LOSS, split_json, split_of
from research.models import Experiment, MergeRequest, Project, Series

POINTS = 40  # of a curve
CURVE_PAIRS = 4  # of an experiment, the first ones
DIGITS = 5


def closing(project: Project) -> dict[str, Any] | None:
    """Champion against start on fresh seeds: pair by pair, and its gain taken apart."""
    experiment = Experiment.objects.filter(key=f"closing-{project.public_id}").first()
    if experiment is None:
        return None
    pairs = [{"seed": seed, "baseline": one, "candidate": two} for seed, one, two in experiment.by_seed()]
    return {
        "number": experiment.number, "baseline": experiment.baseline_commit, "candidate": experiment.candidate_commit,
        "set": experiment.confirm_split, "pairs": pairs, "split": split(experiment),
    }  # fmt: skip


def split(experiment: Experiment) -> dict[str, Any] | None:
    """Modelling and throughput of its gain."""
    return split_json(split_of(experiment))


def curves(project: Project, merges: Sequence[MergeRequest]) -> list[dict[str, Any]]:
    """Losses of the closing pairs, of every merge and every transfer: some pairs each, thinned."""
    beside = project.experiments.filter(purpose__in=(Experiment.Purpose.CLOSING, Experiment.Purpose.TRANSFER))
    wanted = [*(request.verdict.experiment for request in merges), *beside.order_by("number")]
    found = []
    for experiment in wanted:
        trials = {
            trial.pk: trial
            for trial in experiment.trials.filter(pair__lt=CURVE_PAIRS, result__score__isnull=False)
            if trial.stage in ("confirm", "closing")
        }
        rows = Series.objects.newest().filter(trial__in=trials, metric=LOSS)
        of = dict(rows.values_list("pk", "trial"))
        for pk, points in rows.points():
            trial = trials[of[pk]]
            steps, values = thinned(*points)
            found.append({
                "number": experiment.number, "pair": trial.pair, "seed": trial.seed, "arm": trial.arm, "metric": LOSS,
                "steps": steps, "values": values,
            })  # fmt: skip
    return found


def thinned(steps: Any, values: Any) -> tuple[list[int], list[float]]:
    """At most POINTS points, each the mean over as many that were logged, at the last step of them; finite ones."""
    import numpy as np

    order = np.argsort(steps, kind="stable")
    order = order[np.isfinite(values[order])]
    parts = [part for part in np.array_split(order, min(len(order), POINTS) or 1) if len(part)]
    return [int(steps[part[-1]]) for part in parts], [float(f"{values[part].mean():.{DIGITS}g}") for part in parts]
