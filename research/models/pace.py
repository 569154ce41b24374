"""How long pairs take on the device, by what the newest ones took: what a sitting can still begin."""

from __future__ import annotations

from statistics import median

from research.models.project import Project
from research.models.trial import Result, Trial

USUAL_OVERHEAD = 10.0  # seconds of a pair beyond its budgets, until one has been measured
NEWEST_RESULTS = 40  # that say how long a trial takes


def pair_seconds(project: Project, preset: str = "") -> float:
    """Seconds that a usual pair takes under the project's preset, or under another one."""
    sizes = project.contract.preset(preset) if preset else project.sizes
    if sizes.side_by_side:
        return 1.6 * sizes.budget_seconds + 2
    own = Result.objects.filter(trial__project=project, score__isnull=False)
    own = own.filter(trial__preset__in=("", preset) if preset == project.preset else (preset,))
    seconds = list(own.order_by("-pk").values_list("device_seconds", flat=True)[:NEWEST_RESULTS])
    return 2 * median(seconds) if seconds else 2 * sizes.budget_seconds + USUAL_OVERHEAD


def expected_seconds(trial: Trial) -> float:
    """Seconds that the pair of a waiting trial may take: the usual ones, and its warm-up where its commit is new."""
    usual = pair_seconds(trial.project, trial.preset)
    if trial.sizes.side_by_side:
        return usual
    pair = Trial.objects.filter(experiment=trial.experiment_id, stage=trial.stage, pair=trial.pair)
    commits = set(pair.values_list("commit", flat=True))
    known = Result.objects.filter(trial__project=trial.project_id)
    new = commits - set(known.filter(trial__commit__in=commits).values_list("trial__commit", flat=True))
    took = [row.get("warm_up", 0.0) for row in known.order_by("-pk").values_list("seconds", flat=True)[:NEWEST_RESULTS]]
    return usual + (max(took, default=0.0) if new else 0.0)
